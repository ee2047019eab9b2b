//! The filters that authorize flows, to tell whether a policy that takes the place of another changes them.

use openwfp_abi::config::AUTHORIZATIONS;
use openwfp_engine::CompiledPolicy;
use openwfp_model::{Action, Errno, FilterCondition, FilterFlags, Guid, LayerId};

/// The layers, as flows number them.
const LAYERS: [LayerId; AUTHORIZATIONS] = [
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
];

/// What a filter does, whatever it is called and whoever has made it.
#[derive(Debug, PartialEq, Eq)]
struct Effect {
    sublayer: Guid,
    conditions: Vec<FilterCondition>,
    action: Action,
    flags: FilterFlags,
    errno: Option<Errno>,
    provider_context: Option<Guid>,
}

/// The filters of each layer that authorizes, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct AuthorizingFilters([Vec<Effect>; AUTHORIZATIONS]);

impl AuthorizingFilters {
    pub(crate) fn of(policy: &CompiledPolicy) -> Self {
        Self(LAYERS.map(|layer| {
            // a marker stands before the filters that it stands for, and follows from them
            let places = policy.layer_of(layer).places.iter().filter(|place| place.marker.is_none());
            places.filter_map(|place| policy.filter(place.filter)).map(|compiled| effect(&compiled.filter)).collect()
        }))
    }

    /// At which of the layers two policies differ.
    pub(crate) fn differ(&self, other: &Self) -> [bool; AUTHORIZATIONS] {
        std::array::from_fn(|place| self.0[place] != other.0[place])
    }
}

fn effect(filter: &openwfp_model::Filter) -> Effect {
    // the others do not change what is decided
    let deciding = FilterFlags::CLEAR_ACTION_RIGHT | FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED;
    Effect {
        sublayer: filter.sublayer,
        conditions: filter.conditions.clone(),
        action: filter.action,
        flags: filter.flags & deciding,
        errno: filter.errno,
        provider_context: filter.provider_context,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_engine::compile;
    use openwfp_model::{FieldId, Filter, FilterBuilder, MatchType, Policy, Value, Weight};

    fn filters(filters: Vec<FilterBuilder>) -> AuthorizingFilters {
        let filters = filters.into_iter().map(|filter| filter.build().unwrap());
        let policy = filters.fold(Policy::builder(), |policy, filter| policy.filter(filter)).build().unwrap();
        AuthorizingFilters::of(&compile(&[&policy]).unwrap())
    }

    fn port(name: &str, action: Action, port: u16) -> FilterBuilder {
        Filter::builder(name, LayerId::ALE_AUTH_CONNECT_V4).action(action).when(
            FieldId::IP_REMOTE_PORT,
            MatchType::Equal,
            Value::Uint16(port),
        )
    }

    #[test]
    fn a_name_is_no_difference() {
        let [a, b] = ["a", "b"].map(|name| filters(vec![port(name, Action::Block, 1)]));
        assert_eq!(a.differ(&b), [false; AUTHORIZATIONS]);
    }

    #[test]
    fn conditions_actions_and_order_are() {
        let one = || filters(vec![port("a", Action::Block, 1)]);
        let connect = [true, false, false, false];
        assert_eq!(one().differ(&filters(vec![port("a", Action::Block, 2)])), connect);
        assert_eq!(one().differ(&filters(vec![port("a", Action::Permit, 1)])), connect);
        assert_eq!(one().differ(&filters(vec![])), connect);
        let order = |first, second| {
            let heavier = port("a", Action::Block, 1).weight(Weight::Range(first));
            filters(vec![heavier, port("b", Action::Permit, 1).weight(Weight::Range(second))])
        };
        assert_eq!(order(9, 1).differ(&order(1, 9)), connect);
        assert_eq!(order(9, 1).differ(&order(8, 2)), [false; AUTHORIZATIONS], "only the order counts");
    }

    #[test]
    fn filters_of_other_layers_do_not_count() {
        let other = Filter::builder("a", LayerId::DATAGRAM_DATA_V4).action(Action::Block);
        assert_eq!(filters(vec![]).differ(&filters(vec![other])), [false; AUTHORIZATIONS]);
    }
}
