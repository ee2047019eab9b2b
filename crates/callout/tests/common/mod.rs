//! What the tests of callouts share: callouts from closures, policies that name them, and packets.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::sync::{Arc, Mutex};

use openwfp_callout::{
    Callout, Classification, ClassifyOut, Filter, FlowContext, FlowHandle, LayerData, LayerEvent, LayerOutcome,
    Metadata, Notification, Platform, Refused, Registration, Registry,
};
use openwfp_engine::{CompiledPolicy, Values, compile_objects};
use openwfp_model::{Action, CalloutKind, Filter as PolicyFilter, FilterFlags, Guid, LayerId, Sublayer, Weight};

pub type Classify = Box<dyn Fn(&mut Classification<'_>, &mut ClassifyOut) + Send + Sync>;

/// A callout from a closure, which writes down what it is told.
pub struct Scripted {
    pub registration: Registration,
    pub classify: Classify,
    /// Refuses filters of this name.
    pub refuses: &'static str,
    pub log: Arc<Mutex<Vec<String>>>,
    pub platform: Arc<Mutex<Option<Platform>>>,
}

impl Scripted {
    pub fn new(
        number: u128,
        classify: impl Fn(&mut Classification<'_>, &mut ClassifyOut) + Send + Sync + 'static,
    ) -> Self {
        Self {
            registration: Registration::new(Guid::from_u128(number), format!("callout {number}")),
            classify: Box::new(classify),
            refuses: "refused",
            log: Arc::default(),
            platform: Arc::default(),
        }
    }
}

impl Callout for Scripted {
    fn registration(&self) -> Registration {
        self.registration.clone()
    }

    fn registered(&self, platform: &Platform) {
        *self.platform.lock().unwrap() = Some(platform.clone());
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        (self.classify)(event, out);
    }

    fn notify(&self, notification: Notification<'_>) -> Result<(), Refused> {
        let said = match notification {
            Notification::FilterAdded(filter) if filter.name == self.refuses => return Err(Refused::new("no")),
            Notification::FilterAdded(filter) => format!("added {}", filter.name),
            Notification::FilterDeleted(filter) => format!("deleted {}", filter.name),
            _ => String::new(),
        };
        self.log.lock().unwrap().push(said);
        Ok(())
    }

    fn flow_delete(&self, layer: LayerId, flow: FlowHandle, context: FlowContext) {
        let context = context.downcast::<u32>().map_or(0, |number| *number);
        self.log.lock().unwrap().push(format!("flow {flow} at {layer}: {context}"));
    }
}

/// What stands in a policy: the number of a callout and its kind, or an action; flags. One sublayer each, from the highest down.
#[derive(Clone, Copy)]
pub enum Says {
    Callout(u128, CalloutKind, FilterFlags),
    Permit(FilterFlags),
    Block,
}

/// A policy with one filter in each sublayer; ids count from 1. The callouts get to know their filters.
pub fn policy(registry: &Registry, layer: LayerId, says: &[Says]) -> CompiledPolicy {
    let (mut sublayers, mut filters) = (vec![], vec![]);
    for (number, says) in says.iter().enumerate() {
        let sublayer = Sublayer::builder(format!("{number}")).weight(0xf000 - number as u16).build().unwrap();
        let (action, flags) = match *says {
            Says::Callout(callout, kind, flags) => (Action::Callout { callout: Guid::from_u128(callout), kind }, flags),
            Says::Permit(flags) => (Action::Permit, flags),
            Says::Block => (Action::Block, FilterFlags::empty()),
        };
        let filter = PolicyFilter::builder(format!("filter {number}"), layer)
            .sublayer(sublayer.key)
            .weight(Weight::Exact(1))
            .flags(flags)
            .action(action)
            .build()
            .unwrap();
        let id = number as u64 + 1;
        if let Action::Callout { callout, kind } = action {
            let made = Filter::new(id, filter.key, &filter.name, layer, kind).with_flags(flags);
            registry.add_filter(callout, made).unwrap();
        }
        filters.push((id, filter));
        sublayers.push(sublayer);
    }
    compile_objects(1, &sublayers, filters, &registry.keys()).unwrap()
}

pub fn terminating(number: u128) -> Says {
    Says::Callout(number, CalloutKind::Terminating, FilterFlags::empty())
}

pub fn metadata(flow: u64) -> Metadata<'static> {
    let mut metadata = Metadata::default();
    metadata.flow = Some(FlowHandle::new(flow));
    metadata
}

/// Classifies an event without values.
pub fn classify(
    registry: &Registry,
    policy: &CompiledPolicy,
    layer: LayerId,
    flow: u64,
    data: LayerData<'_>,
) -> LayerOutcome {
    registry.flow_began(FlowHandle::new(flow));
    let (values, metadata) = (Values::new(), metadata(flow));
    registry.classify(policy, &LayerEvent::new(layer, &values, &metadata, data))
}
