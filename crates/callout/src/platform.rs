//! What a callout asks of the platform, inside and outside of its classifications.

use std::fmt;
use std::sync::Arc;

use openwfp_model::LayerId;
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use crate::{FlowContext, FlowContextError, FlowHandle, InjectError, Injection, Injector, Report};

/// What a host does for one callout. Authors meet it as [`Platform`].
pub trait Services: Injector + Send + Sync {
    /// See [`Platform::associate_context`].
    ///
    /// # Errors
    /// With the context, which was not taken.
    fn associate_context(
        &self,
        flow: FlowHandle,
        layer: LayerId,
        context: FlowContext,
    ) -> Result<(), (FlowContextError, FlowContext)>;

    /// See [`Platform::remove_context`].
    ///
    /// # Errors
    /// Why there was nothing to remove.
    fn remove_context(&self, flow: FlowHandle, layer: LayerId) -> Result<(), FlowContextError>;

    /// See [`Platform::reauthorize`].
    fn reauthorize(&self, layer: LayerId);

    /// See [`Platform::continue_stream`].
    fn continue_stream(&self, flow: FlowHandle, direction: Direction);

    /// See [`Platform::abort_flow`].
    fn abort_flow(&self, flow: FlowHandle);

    /// See [`Platform::report`].
    fn report(&self, report: Report);

    /// See [`Platform::now`].
    fn now(&self) -> Timestamp;
}

/// The platform, as one callout knows it. Clones are the same platform; any thread may hold one for as long as it likes.
#[derive(Clone)]
pub struct Platform(Arc<dyn Services>);

impl Platform {
    /// The platform of these services. For hosts.
    #[must_use]
    pub fn new(services: Arc<dyn Services>) -> Self {
        Self(services)
    }

    /// Associates a context with a flow at a layer (`FwpsFlowAssociateContext`), which need not be the layer that is classified:
    /// one that is made at ALE_FLOW_ESTABLISHED can wait for the data at STREAM. It comes back through
    /// [`Callout::flow_delete`](crate::Callout::flow_delete).
    ///
    /// # Errors
    /// With the context, which was not taken.
    pub fn associate_context(
        &self,
        flow: FlowHandle,
        layer: LayerId,
        context: FlowContext,
    ) -> Result<(), (FlowContextError, FlowContext)> {
        self.0.associate_context(flow, layer, context)
    }

    /// Removes a context (`FwpsFlowRemoveContext`): it comes back through `flow_delete`, before this returns, or, where it is lent to a
    /// classification, as soon as that is over.
    ///
    /// # Errors
    /// Why there was nothing to remove.
    pub fn remove_context(&self, flow: FlowHandle, layer: LayerId) -> Result<(), FlowContextError> {
        self.0.remove_context(flow, layer)
    }

    /// Has the flows that were authorized at a layer authorized again, each at its next packet. (On Windows a callout changes a filter for
    /// that.)
    pub fn reauthorize(&self, layer: LayerId) {
        self.0.reauthorize(layer);
    }

    /// Goes on with a stream whose data were deferred (`FwpsStreamContinue`).
    pub fn continue_stream(&self, flow: FlowHandle, direction: Direction) {
        self.0.continue_stream(flow, direction);
    }

    /// Ends a flow both ways (`FwpsFlowAbort`); its socket is told.
    pub fn abort_flow(&self, flow: FlowHandle) {
        self.0.abort_flow(flow);
    }

    /// Reports something to those who read the events.
    pub fn report(&self, report: Report) {
        self.0.report(report);
    }

    /// The time: that of the machine live, that of the capture in replay. A callout that reads no other clock gives the same answers in
    /// every replay.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }
}

impl Injector for Platform {
    fn inject(&self, injection: Injection) -> Result<(), InjectError> {
        self.0.inject(injection)
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}
