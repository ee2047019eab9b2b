//! How the automatic bits of a layer are divided among its fields.

use std::ops::Range;

use super::{AUTOMATIC_BITS, WHOLE, bits};
use crate::{DataType, FieldId, Layer, LayerField, LayerId};

/// No layer has more fields; a test holds the tables to it.
pub(super) const MOST_FIELDS: usize = 64;

type F = FieldId;

/// Fields that share a slot. The first of them names it.
const SHARED: &[&[FieldId]] = &[
    &[
        F::IP_LOCAL_ADDRESS,
        F::IP_REMOTE_ADDRESS,
        F::IP_SOURCE_ADDRESS,
        F::IP_DESTINATION_ADDRESS,
        F::IP_LOCAL_ADDRESS_V4,
        F::IP_REMOTE_ADDRESS_V4,
        F::IP_LOCAL_ADDRESS_V6,
        F::IP_REMOTE_ADDRESS_V6,
    ],
    &[
        F::IP_LOCAL_INTERFACE,
        F::IP_ARRIVAL_INTERFACE,
        F::IP_NEXTHOP_INTERFACE,
        F::IP_FORWARD_INTERFACE,
        F::IP_PHYSICAL_ARRIVAL_INTERFACE,
        F::IP_PHYSICAL_NEXTHOP_INTERFACE,
    ],
    &[F::IP_LOCAL_ADDRESS_TYPE, F::EMBEDDED_LOCAL_ADDRESS_TYPE],
    &[F::IP_PROTOCOL, F::EMBEDDED_PROTOCOL],
    &[F::IP_LOCAL_PORT, F::ORIGINAL_ICMP_TYPE, F::IP_SOURCE_PORT],
    &[F::IP_REMOTE_PORT, F::IP_DESTINATION_PORT],
    &[
        F::ALE_APP_ID,
        F::ALE_ORIGINAL_APP_ID,
        F::ALE_PACKAGE_ID,
        F::ALE_PACKAGE_FAMILY_NAME,
        F::ALE_SECURITY_ATTRIBUTE_FQBN_VALUE,
        // ours: a slot of 1 bit is filled by any of its fields, so the weights of the platform stay as they are
        F::LINUX_CGROUP,
        F::LINUX_SYSTEMD_UNIT,
        F::LINUX_CONTAINER,
    ],
    &[F::COMPARTMENT_ID, F::LINUX_NETWORK_NAMESPACE],
    &[F::INTERFACE_TYPE, F::ARRIVAL_INTERFACE_TYPE, F::NEXTHOP_INTERFACE_TYPE],
    &[F::TUNNEL_TYPE, F::ARRIVAL_TUNNEL_TYPE, F::NEXTHOP_TUNNEL_TYPE],
    &[
        F::INTERFACE_INDEX,
        F::ARRIVAL_INTERFACE_INDEX,
        F::NEXTHOP_INTERFACE_INDEX,
        F::SOURCE_INTERFACE_INDEX,
        F::DESTINATION_INTERFACE_INDEX,
    ],
    &[
        F::SUB_INTERFACE_INDEX,
        F::NEXTHOP_SUB_INTERFACE_INDEX,
        F::SOURCE_SUB_INTERFACE_INDEX,
        F::DESTINATION_SUB_INTERFACE_INDEX,
    ],
    &[F::LOCAL_INTERFACE_PROFILE_ID, F::ARRIVAL_INTERFACE_PROFILE_ID, F::NEXTHOP_INTERFACE_PROFILE_ID],
    &[F::MAC_LOCAL_ADDRESS, F::MAC_REMOTE_ADDRESS, F::MAC_SOURCE_ADDRESS, F::MAC_DESTINATION_ADDRESS],
    &[
        F::RESERVED0,
        F::RESERVED1,
        F::RESERVED2,
        F::RESERVED3,
        F::RESERVED4,
        F::RESERVED5,
        F::RESERVED6,
        F::RESERVED7,
        F::RESERVED8,
        F::RESERVED9,
        F::RESERVED10,
        F::RESERVED11,
        F::RESERVED12,
        F::RESERVED13,
        F::RESERVED14,
        F::RESERVED15,
    ],
];

/// The slots whose width follows from the size of their fields; every other one has 1 bit.
const SIZED: &[FieldId] = &[
    F::IP_LOCAL_ADDRESS,
    F::EMBEDDED_REMOTE_ADDRESS,
    F::MAC_LOCAL_ADDRESS,
    F::IP_PROTOCOL,
    F::ETHER_TYPE,
    F::VLAN_ID,
    F::EMBEDDED_LOCAL_PORT,
    F::EMBEDDED_REMOTE_PORT,
    F::IP_LOCAL_PORT,
    F::IP_REMOTE_PORT,
    F::DIRECTION,
    F::ALE_PROMISCUOUS_MODE,
    F::ALE_NAP_CONTEXT,
    F::INTERFACE_INDEX,
    F::SUB_INTERFACE_INDEX,
    F::NDIS_PORT,
    F::ORIGINAL_PROFILE_ID,
    F::CURRENT_PROFILE_ID,
];

/// The highest slots, highest first. Those not named follow in the order of the layer's fields.
const ORDER: &[FieldId] = &[
    F::IP_LOCAL_ADDRESS,
    F::IP_LOCAL_INTERFACE,
    F::IP_LOCAL_ADDRESS_TYPE,
    F::IP_PROTOCOL,
    F::EMBEDDED_LOCAL_PORT,
    F::EMBEDDED_REMOTE_PORT,
    F::IP_LOCAL_PORT,
    F::IP_REMOTE_PORT,
    F::ALE_APP_ID,
    F::ALE_USER_ID,
    F::ALE_REMOTE_USER_ID,
    F::ALE_REMOTE_MACHINE_ID,
    F::DIRECTION,
];

/// The same where an application connects.
const ORDER_OF_CONNECT: &[FieldId] = &[
    F::PEER_NAME,
    F::IP_LOCAL_ADDRESS,
    F::IP_LOCAL_INTERFACE,
    F::IP_LOCAL_ADDRESS_TYPE,
    F::IP_PROTOCOL,
    F::IP_LOCAL_PORT,
    F::IP_REMOTE_PORT,
    F::ALE_APP_ID,
    F::ALE_USER_ID,
    F::FLAGS,
    F::ALE_REMOTE_USER_ID,
    F::ALE_REMOTE_MACHINE_ID,
    F::IP_DESTINATION_ADDRESS_TYPE,
    F::INTERFACE_TYPE,
    F::TUNNEL_TYPE,
    F::ALE_EFFECTIVE_NAME,
];

/// The same where an application binds: there the port says most, and the address is hardly known.
const ORDER_OF_BIND: &[FieldId] = &[
    F::IP_LOCAL_PORT,
    F::IP_LOCAL_INTERFACE,
    F::IP_LOCAL_ADDRESS_TYPE,
    F::IP_PROTOCOL,
    F::ALE_APP_ID,
    F::ALE_USER_ID,
    F::ALE_PROMISCUOUS_MODE,
    F::FLAGS,
    F::INTERFACE_TYPE,
    F::TUNNEL_TYPE,
    F::IP_LOCAL_ADDRESS,
];

fn order(layer: LayerId) -> &'static [FieldId] {
    match layer {
        LayerId::ALE_AUTH_CONNECT_V4
        | LayerId::ALE_AUTH_CONNECT_V6
        | LayerId::ALE_AUTH_CONNECT_V4_DISCARD
        | LayerId::ALE_AUTH_CONNECT_V6_DISCARD => ORDER_OF_CONNECT,
        LayerId::ALE_RESOURCE_ASSIGNMENT_V4
        | LayerId::ALE_RESOURCE_ASSIGNMENT_V6
        | LayerId::ALE_RESOURCE_ASSIGNMENT_V4_DISCARD
        | LayerId::ALE_RESOURCE_ASSIGNMENT_V6_DISCARD => ORDER_OF_BIND,
        _ => ORDER,
    }
}

/// The slots of a layer.
pub(super) struct Layout {
    /// Lowest first.
    slots: Vec<Slot>,
    /// Of each field, by its number: its index among the fields of the layer in the order of their slots, and its type here.
    fields: Vec<Option<(usize, DataType)>>,
}

struct Slot {
    /// The lowest bit.
    shift: u32,
    /// The number of bits.
    width: u32,
    /// The fields that share it, as indexes.
    fields: Range<usize>,
}

impl Layout {
    pub(super) fn new(layer: &Layer) -> Layout {
        let members = |name: FieldId| layer.all_fields().filter(move |field| slot_name(field.field) == name);
        let size_of = |name: FieldId| members(name).map(size).sum::<u32>();
        let mut names = order(layer.id).to_vec();
        for field in layer.all_fields() {
            let name = slot_name(field.field);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.retain(|name| members(*name).next().is_some());

        let all_sizes: u32 = names.iter().map(|name| size_of(*name)).sum();
        let single_bits = names.iter().filter(|name| size_of(**name) == 0).count() as u32;
        let divided = AUTOMATIC_BITS.saturating_sub(single_bits);
        // Counted from the lowest bit, and rounded where each share ends, so that the shares fill the bits exactly.
        let end = |sizes: u32| (2 * divided * sizes + all_sizes).checked_div(2 * all_sizes).unwrap_or(0);

        let mut layout = Layout { slots: Vec::new(), fields: vec![None; FieldId::all().len()] };
        let (mut shift, mut sizes, mut index) = (0, 0, 0);
        for name in names.into_iter().rev() {
            let size = size_of(name);
            let width = if size == 0 { 1 } else { end(sizes + size) - end(sizes) };
            let first = index;
            for field in members(name) {
                layout.fields[usize::from(field.field.get())] = Some((index, field.data_type));
                index += 1;
            }
            layout.slots.push(Slot { shift, width, fields: first..index });
            shift += width;
            sizes += size;
        }
        layout
    }

    /// Whether the layer has no fields.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Where [`fill`](Layout::fill) expects the field, and its type at the layer; none if the layer lacks it.
    pub(super) fn find(&self, field: FieldId) -> Option<(usize, DataType)> {
        *self.fields.get(usize::from(field.get()))?
    }

    /// The bits of all slots, given how far each field is pinned down, from 0 to [`WHOLE`].
    pub(super) fn fill(&self, pinned: &[u64; MOST_FIELDS]) -> u64 {
        self.slots.iter().map(|slot| slot.fill(&pinned[slot.fields.clone()]) << slot.shift).sum()
    }
}

impl Slot {
    fn fill(&self, pinned: &[u64]) -> u64 {
        let sum: u64 = pinned.iter().sum();
        if sum == 0 {
            return 0;
        }
        let highest = u128::from((1_u64 << self.width) - 1);
        let whole = u128::from(WHOLE) * pinned.len() as u128;
        let rounded = (2 * highest * u128::from(sum) + whole) / (2 * whole);
        rounded.max(1) as u64
    }
}

fn slot_name(field: FieldId) -> FieldId {
    SHARED.iter().find(|shared| shared.contains(&field)).map_or(field, |shared| shared[0])
}

/// What the field counts when bits are divided; 0 if its slot has 1 bit.
fn size(field: &LayerField) -> u32 {
    let sized = SIZED.contains(&slot_name(field.field));
    bits(field.data_type).filter(|_| sized).map_or(0, u32::ilog2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_fill_no_more_than_60_bits() {
        for layer in Layer::all() {
            assert!(layer.all_fields().count() <= MOST_FIELDS, "{}", layer.name);
            let layout = Layout::new(layer);
            let mut next = 0;
            for slot in &layout.slots {
                assert_eq!(slot.shift, next, "{}", layer.name);
                assert!(slot.width > 0, "{}", layer.name);
                next += slot.width;
            }
            assert!(next <= AUTOMATIC_BITS, "{}", layer.name);
        }
    }

    #[test]
    fn every_field_of_a_layer_has_a_slot_and_no_other_field_does() {
        for layer in Layer::all() {
            let layout = Layout::new(layer);
            for field in FieldId::all() {
                let found = layout.find(field);
                assert_eq!(found.map(|(_, data_type)| data_type), layer.field(field).map(|field| field.data_type));
                if let Some((index, _)) = found {
                    let slots = layout.slots.iter().filter(|slot| slot.fields.contains(&index));
                    assert_eq!(slots.count(), 1, "{} {field}", layer.name);
                }
            }
        }
    }

    #[test]
    fn whoever_pins_down_everything_fills_every_bit() {
        let connect = Layout::new(LayerId::ALE_AUTH_CONNECT_V4.layer());
        assert_eq!(connect.fill(&[WHOLE; MOST_FIELDS]), (1 << AUTOMATIC_BITS) - 1);
    }
}
