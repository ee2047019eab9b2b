//! What an author writes: a [`Callout`], and what is registered of it.

use std::time::Duration;

use openwfp_model::{Guid, LayerId};

use crate::{Classification, ClassifyOut, Filter, FlowContext, FlowHandle, Platform};

/// Code that filters name (`FWPS_CALLOUT`).
///
/// Calls come from any thread, several at once for different flows; for one flow at one layer they come one after the other, in
/// the order of its packets. A call that panics unregisters the callout: its terminating filters block from then on, or
/// permit where [`FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED`](openwfp_model::FilterFlags) is set.
///
/// ```
/// use openwfp_callout::{Callout, Classification, ClassifyOut, Registration};
/// use openwfp_model::{Guid, LayerId};
///
/// /// Blocks datagrams that are longer than 512 bytes.
/// struct ShortDatagrams;
///
/// impl Callout for ShortDatagrams {
///     fn registration(&self) -> Registration {
///         Registration::new(Guid::named("acme", "short datagrams"), "acme.short-datagrams")
///             .at([LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6])
///     }
///
///     fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
///         match event.packet().map_or(0, |packet| packet.payload().len()) {
///             0..=512 => out.permit(),
///             _ => out.block(),
///         }
///     }
/// }
/// ```
pub trait Callout: Send + Sync {
    /// Key, name and layers; asked once, when it is registered.
    fn registration(&self) -> Registration;

    /// Is handed the platform once, before anything else is called: for what it does outside `classify`.
    fn registered(&self, _platform: &Platform) {}

    /// Decides about an event that met a filter which names the callout (`classifyFn`).
    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut);

    /// Is told of filters that name the callout (`notifyFn`): of those that exist when it registers, and of those that come and
    /// go later.
    ///
    /// # Errors
    /// A filter that is added may be refused: then it is not added. When the callout registers, refusing a filter that exists
    /// refuses the registration. What is returned for a deleted filter is passed over.
    fn notify(&self, _notification: Notification<'_>) -> Result<(), Refused> {
        Ok(())
    }

    /// Takes back a context that the callout had associated with a flow (`flowDeleteFn`): exactly once for each context, when the
    /// flow ends or when the context is removed.
    fn flow_delete(&self, _layer: LayerId, _flow: FlowHandle, _context: FlowContext) {}
}

/// What is registered of a callout (`FWPS_CALLOUT`, `FWPM_CALLOUT`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The key, which filters name.
    pub key: Guid,
    /// The name, for people and reports.
    pub name: String,
    /// The layers at which it can be asked. A filter elsewhere that names it is refused; empty means every layer.
    pub layers: Vec<LayerId>,
    /// Whether it is asked only about flows with which it has associated a context (`FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW`). Its
    /// filters are passed over for others.
    pub conditional_on_flow: bool,
    /// How long an operation that it pends is held. After that it is blocked, as one that nobody answers for.
    pub pend_timeout: Duration,
    /// How much it may have under way.
    pub limits: Limits,
}

impl Registration {
    /// A registration for every layer, with 30 seconds for pended operations and the default [`Limits`].
    #[must_use]
    pub fn new(key: Guid, name: impl Into<String>) -> Self {
        Self {
            key,
            name: name.into(),
            layers: Vec::new(),
            conditional_on_flow: false,
            pend_timeout: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }

    /// The same for these layers alone.
    #[must_use]
    pub fn at(mut self, layers: impl IntoIterator<Item = LayerId>) -> Self {
        self.layers.extend(layers);
        self
    }

    /// The same, asked only about flows that have a context of its own.
    #[must_use]
    pub fn conditional_on_flow(mut self) -> Self {
        self.conditional_on_flow = true;
        self
    }

    /// The same with another time for pended operations.
    #[must_use]
    pub fn pend_timeout(mut self, timeout: Duration) -> Self {
        self.pend_timeout = timeout;
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// How much one callout may have under way. What passes a limit is refused to the callout and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Injected packets and stream data that wait to be classified.
    pub injections: usize,
    /// Their bytes.
    pub injected_bytes: usize,
    /// How often a packet may be injected again (modified included) on its way, by all callouts together.
    pub generations: usize,
    /// Contexts of flows.
    pub flow_contexts: usize,
    /// Operations that are pended.
    pub pended: usize,
    /// Bytes that wait in one direction of one stream for more data.
    pub stream_bytes: usize,
    /// Reports that nobody has taken yet.
    pub reports: usize,
}

impl Default for Limits {
    /// 1,024 injections of 16 MiB together, 8 generations, 65,536 contexts, 1,024 pended operations, 1 MiB of a stream, 65,536 reports.
    fn default() -> Self {
        Self {
            injections: 1024,
            injected_bytes: 16 << 20,
            generations: 8,
            flow_contexts: 1 << 16,
            pended: 1024,
            stream_bytes: 1 << 20,
            reports: 1 << 16,
        }
    }
}

/// What a callout is told about its filters (`FWPS_CALLOUT_NOTIFY_TYPE`).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Notification<'a> {
    /// A filter names it now.
    FilterAdded(&'a Filter),
    /// A filter that named it is gone.
    FilterDeleted(&'a Filter),
}

/// Why a callout refuses a filter, for the person who adds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Refused {
    /// Refuses with these words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
