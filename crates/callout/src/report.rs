//! Reports: what callouts tell those who read the events.

use std::collections::BTreeMap;

use openwfp_model::{Action, Data};

/// Something that a callout reports. It becomes an event of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// An event of the kind `callout`; what is said is the callout's own affair.
    Callout(BTreeMap<String, Data>),
    /// An event of the kind `dns`.
    Dns(DnsReport),
}

impl Report {
    /// A report of these entries.
    pub fn entries<N: Into<String>>(entries: impl IntoIterator<Item = (N, Data)>) -> Self {
        Self::Callout(entries.into_iter().map(|(name, data)| (name.into(), data)).collect())
    }
}

/// A question to a name server, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsReport {
    /// The name, without the final dot.
    pub name: String,
    /// The type by name, such as `AAAA`; `TYPE` and the number where it has none here.
    pub record_type: String,
    /// What the answer holds of that question: addresses, names, text.
    pub answers: Vec<String>,
    /// The response code by name, such as `NXDOMAIN`; none where there was no answer.
    pub code: Option<String>,
    /// From the question to the answer, in microseconds.
    pub latency_us: Option<u64>,
    /// The server and its port.
    pub server: String,
    /// What became of the question, as far as the callout knows: [`Action::Permit`] or [`Action::Block`].
    pub action: Action,
    /// The process that asked: its number, and its path.
    pub process: Option<(u32, Option<String>)>,
}
