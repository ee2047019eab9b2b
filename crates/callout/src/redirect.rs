//! Redirection: what callouts at ALE_CONNECT_REDIRECT and ALE_BIND_REDIRECT may rewrite.

use std::net::SocketAddr;

/// A bind or a connect as it will be carried out (`FWPS_BIND_REQUEST`, `FWPS_CONNECT_REQUEST`): the writable layer data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedirectRequest {
    /// The local address and port. At ALE_CONNECT_REDIRECT it can be read alone: what is written there is not carried out.
    pub local: Option<SocketAddr>,
    /// The remote address and port; none at ALE_BIND_REDIRECT.
    pub remote: Option<SocketAddr>,
    /// The interface to which the socket is bound by this.
    pub interface: Option<u32>,
    /// The process that is meant to accept the connection (`localRedirectTargetPID`).
    pub target_process: Option<u32>,
    /// Bytes for that process (`localRedirectContext`), which it can ask for with the accepted socket. At most
    /// [`RedirectRequest::MAX_CONTEXT`].
    pub context: Vec<u8>,
}

impl RedirectRequest {
    /// The most bytes of a context.
    pub const MAX_CONTEXT: usize = 4096;

    /// A bind to `local`.
    #[must_use]
    pub fn bind(local: SocketAddr) -> Self {
        Self { local: Some(local), remote: None, interface: None, target_process: None, context: Vec::new() }
    }

    /// A connect to `remote`, from `local` where the socket is bound.
    #[must_use]
    pub fn connect(local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        Self { local, remote: Some(remote), interface: None, target_process: None, context: Vec::new() }
    }
}

/// What a local proxy can ask for with a socket that it accepted (`SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS` and `…_CONTEXT`),
/// and sets on the socket by which it goes on, so that the two are known to belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectRecord {
    /// Where the application wanted to go.
    pub original_destination: Option<SocketAddr>,
    /// The bytes that the redirecting callout left.
    pub context: Vec<u8>,
    /// The numbers of the callouts that redirected, from the first to the last.
    pub redirected_by: Vec<u32>,
}

impl RedirectRecord {
    /// That of what nobody redirected.
    pub const NONE: Self = Self { original_destination: None, context: Vec::new(), redirected_by: Vec::new() };

    /// What the callout of that number is told.
    #[must_use]
    pub fn state_for(&self, callout: u32) -> RedirectState {
        match self.redirected_by.split_last() {
            None => RedirectState::NotRedirected,
            Some((&last, _)) if last == callout => RedirectState::RedirectedBySelf,
            Some((_, before)) if before.contains(&callout) => RedirectState::PreviouslyRedirectedBySelf,
            Some(_) => RedirectState::RedirectedByOther,
        }
    }
}

/// Whether a connection was redirected, as one callout sees it (`FWPS_CONNECTION_REDIRECT_STATE`). A callout that redirects leaves
/// alone what it redirected itself, or it loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RedirectState {
    /// Nobody did.
    #[default]
    NotRedirected,
    /// This callout did.
    RedirectedBySelf,
    /// Another callout did.
    RedirectedByOther,
    /// This callout did, and another redirected it once more after that.
    PreviouslyRedirectedBySelf,
}
