//! What the registry does for one callout.

use std::sync::{Arc, Weak};

use openwfp_model::LayerId;
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use crate::context::Removed;
use crate::registry::{Inner, Waiting};
use crate::{
    Answer, Completer, FlowContext, FlowContextError, FlowHandle, InjectError, Injection, InjectionPoint, Injector,
    PendError, PendedOperation, Pender, Report, Services, mend,
};

/// The services for the callout of that number. They do not keep the registry alive, which keeps the callout alive.
pub(crate) struct CalloutServices {
    pub(crate) inner: Weak<Inner>,
    pub(crate) callout: u32,
}

impl Injector for CalloutServices {
    fn inject(&self, mut injection: Injection) -> Result<(), InjectError> {
        let inner = self.inner.upgrade().ok_or(InjectError::NotRegistered)?;
        if inner.deferred.is_some() {
            return Err(InjectError::Unsupported);
        }
        match injection.point {
            InjectionPoint::Stream { .. } => {}
            InjectionPoint::MacSend | InjectionPoint::MacReceive => {
                mend(true, &mut injection.data).map_err(|_| InjectError::NotAPacket)?;
            }
            _ => mend(false, &mut injection.data).map_err(|_| InjectError::NotAPacket)?,
        }
        let mut state = inner.lock();
        let limits = state.limits(self.callout).ok_or(InjectError::NotRegistered)?;
        if let InjectionPoint::Stream { flow, .. } = injection.point
            && !state.flows.contains(&flow)
        {
            return Err(InjectError::NoSuchFlow);
        }
        let refused = if injection.history.generations() >= limits.generations {
            Some(InjectError::TooOften)
        } else {
            let waiting = state.waiting.entry(self.callout).or_default();
            let full =
                waiting.injections >= limits.injections || waiting.bytes + injection.data.len() > limits.injected_bytes;
            full.then_some(InjectError::TooMuch)
        };
        if let Some(error) = refused {
            state.counts.injections_refused += 1;
            return Err(error);
        }
        let waiting = state.waiting.entry(self.callout).or_default();
        waiting.injections += 1;
        waiting.bytes += injection.data.len();
        injection.history = injection.history.injected_by(self.callout);
        state.injections.push_back(Waiting { callout: self.callout, injection });
        Ok(())
    }
}

impl Services for CalloutServices {
    fn associate_context(
        &self,
        flow: FlowHandle,
        layer: LayerId,
        context: FlowContext,
    ) -> Result<(), (FlowContextError, FlowContext)> {
        let Some(inner) = self.inner.upgrade() else { return Err((FlowContextError::NotRegistered, context)) };
        let mut state = inner.lock();
        let Some(limits) = state.limits(self.callout) else {
            return Err((FlowContextError::NotRegistered, context));
        };
        if !state.flows.contains(&flow) {
            return Err((FlowContextError::NoSuchFlow, context));
        }
        state.contexts.insert((flow, layer, self.callout), context, limits.flow_contexts)
    }

    fn remove_context(&self, flow: FlowHandle, layer: LayerId) -> Result<(), FlowContextError> {
        let inner = self.inner.upgrade().ok_or(FlowContextError::NotRegistered)?;
        let key = (flow, layer, self.callout);
        let removed = inner.lock().contexts.remove(&key)?;
        if let Removed::Now(context) = removed {
            inner.flow_delete(key, context);
        }
        Ok(())
    }

    fn reauthorize(&self, layer: LayerId) {
        if let Some(inner) = self.inner.upgrade() {
            let mut state = inner.lock();
            if !state.reauthorize.contains(&layer) {
                state.reauthorize.push(layer);
            }
        }
    }

    fn continue_stream(&self, flow: FlowHandle, direction: Direction) {
        if let Some(inner) = self.inner.upgrade() {
            let mut state = inner.lock();
            if state.flows.contains(&flow) && !state.continued.contains(&(flow, direction)) {
                state.continued.push((flow, direction));
            }
        }
    }

    fn abort_flow(&self, flow: FlowHandle) {
        if let Some(inner) = self.inner.upgrade() {
            let mut state = inner.lock();
            if state.flows.contains(&flow) && !state.aborted.contains(&flow) {
                state.aborted.push(flow);
            }
        }
    }

    fn report(&self, report: Report) {
        if let Some(inner) = self.inner.upgrade() {
            inner.lock().report(self.callout, report);
        }
    }

    fn now(&self) -> Timestamp {
        self.inner.upgrade().map_or(Timestamp::default(), |inner| inner.lock().now)
    }
}

/// Pends the event about which one callout is being asked.
pub(crate) struct EventPender {
    pub(crate) inner: Arc<Inner>,
    pub(crate) callout: u32,
}

impl Pender for EventPender {
    fn pend(&self) -> Result<PendedOperation, PendError> {
        let mut state = self.inner.lock();
        let most = self.inner.deferred.as_ref().map_or(usize::MAX, |deferred| deferred.most_pended);
        let limit = state.limits(self.callout).map_or(0, |limits| limits.pended).min(most);
        if state.pended.values().filter(|pended| pended.callout == self.callout).count() >= limit {
            return Err(PendError::TooMany);
        }
        let operation = state.pend(self.callout);
        drop(state);
        Ok(PendedOperation::new(operation, self.inner.clone()))
    }
}

impl Completer for Inner {
    fn complete(&self, operation: u64, answer: Option<Answer>) {
        let mut state = self.lock();
        match state.pended.get_mut(&operation) {
            Some(pended) if pended.answer.is_none() => {
                pended.answer = Some(answer);
                self.changed.notify_all();
                if let Some(deferred) = &self.deferred {
                    state.answered.push_back(operation);
                    drop(state);
                    (deferred.answered)();
                }
            }
            _ => state.counts.late_answers += 1,
        }
    }
}
