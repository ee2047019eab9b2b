//! One event, as a callout is asked about it.

use openwfp_model::LayerId;

use crate::{
    Filter, FlowContext, FlowContextError, IncomingValues, InjectionHistory, LayerData, Metadata, PacketData,
    PacketInjectionState, Platform, RedirectRecord, RedirectState, StreamData,
};

/// An event that met a filter which names the callout (the arguments of `classifyFn`).
#[non_exhaustive]
pub struct Classification<'a> {
    /// What filters could test.
    pub values: IncomingValues<'a>,
    /// What is known beside that.
    pub metadata: &'a Metadata<'a>,
    /// The bytes.
    pub data: LayerData<'a>,
    /// The filter.
    pub filter: &'a Filter,
    /// Who injected the packet or the data so far.
    pub history: &'a InjectionHistory,
    /// Who redirected the connection so far.
    pub redirected: &'a RedirectRecord,
    /// The number of the callout that is asked.
    pub callout: u32,
    /// The platform.
    pub platform: &'a Platform,
    context: Option<&'a mut FlowContext>,
}

impl<'a> Classification<'a> {
    /// An event. For hosts; fields that are not given here can be set after.
    #[must_use]
    pub fn new(
        values: IncomingValues<'a>,
        metadata: &'a Metadata<'a>,
        data: LayerData<'a>,
        filter: &'a Filter,
        callout: u32,
        platform: &'a Platform,
    ) -> Self {
        const NEVER_INJECTED: &InjectionHistory = &InjectionHistory::EMPTY;
        const NEVER_REDIRECTED: &RedirectRecord = &RedirectRecord::NONE;
        let (history, redirected) = (NEVER_INJECTED, NEVER_REDIRECTED);
        Self { values, metadata, data, filter, history, redirected, callout, platform, context: None }
    }

    /// The same with the context that the callout had associated with the flow at this layer. For hosts.
    #[must_use]
    pub fn with_context(mut self, context: Option<&'a mut FlowContext>) -> Self {
        self.context = context;
        self
    }

    /// The layer.
    #[must_use]
    pub fn layer(&self) -> LayerId {
        self.values.layer()
    }

    /// The packet; none where the layer has none.
    #[must_use]
    pub fn packet(&self) -> Option<PacketData<'a>> {
        match self.data {
            LayerData::Packet(packet) => Some(packet),
            _ => None,
        }
    }

    /// The portion of the stream; none at other layers than STREAM.
    #[must_use]
    pub fn stream(&self) -> Option<StreamData<'a>> {
        match self.data {
            LayerData::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether the packet was injected, as this callout sees it (`FwpsQueryPacketInjectionState`).
    #[must_use]
    pub fn injection_state(&self) -> PacketInjectionState {
        self.history.state_for(self.callout)
    }

    /// Whether the connection was redirected, as this callout sees it (`FwpsQueryConnectionRedirectState`).
    #[must_use]
    pub fn redirect_state(&self) -> RedirectState {
        self.redirected.state_for(self.callout)
    }

    /// The context of the flow at this layer (`flowContext`), where the callout has associated one, of that type.
    pub fn flow_context<T: 'static>(&mut self) -> Option<&mut T> {
        self.context.as_mut()?.downcast_mut()
    }

    /// Whether the callout has associated a context with the flow at this layer.
    #[must_use]
    pub fn has_flow_context(&self) -> bool {
        self.context.is_some()
    }

    /// Associates a context with the flow of the event, at its layer. It is there from the next event on.
    ///
    /// # Errors
    /// Why it was not taken; it is dropped then.
    pub fn associate<T: Send + 'static>(&self, context: T) -> Result<(), FlowContextError> {
        let flow = self.metadata.flow.ok_or(FlowContextError::NoSuchFlow)?;
        self.platform.associate_context(flow, self.layer(), Box::new(context)).map_err(|(error, _)| error)
    }
}
