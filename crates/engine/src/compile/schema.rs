//! Where the fields of a layer stand among the words of its incoming values.

use crate::{
    WORDS,
    values::{UNKNOWN, Values, words},
};
use openwfp_model::{DataType, FieldId, Layer, LayerField, LayerId};
use std::{sync::OnceLock, vec::Vec};

/// How a field's words are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One number, the most significant word first.
    Number,
    /// A class number: values that no condition tells apart share one (see `Classes`).
    Class,
    /// A user: the uid in the first word, the groups in [`words::GROUPS`].
    User,
}

/// The words of one field at one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldWords {
    /// The field.
    pub field: FieldId,
    /// The first word.
    pub first: usize,
    /// How many words.
    pub count: usize,
    /// How to read them.
    pub encoding: Encoding,
}

impl FieldWords {
    /// Whether the field has a value in these words that is not known.
    #[must_use]
    pub fn is_unknown(&self, values: &Values) -> bool {
        (self.first..self.first + self.count).any(|word| values.get(word) == UNKNOWN)
    }
}

/// The fields of one layer and their words, in the layer's own order.
#[derive(Debug)]
pub struct Schema {
    fields: Vec<FieldWords>,
}

impl Schema {
    /// The schema of a layer.
    #[must_use]
    pub fn of(layer: LayerId) -> &'static Self {
        static SCHEMAS: OnceLock<Vec<Schema>> = OnceLock::new();
        &SCHEMAS.get_or_init(|| Layer::all().iter().map(Self::build).collect())[layer.get() as usize]
    }

    fn build(layer: &Layer) -> Self {
        let own: usize =
            layer.all_fields().filter(|field| common_word(field.field).is_none()).map(|f| shape(f).0).sum();
        // the layers with the most fields of their own (those of RPC) know no interfaces
        let end = if layer.extension_fields().is_empty() { WORDS } else { words::LINUX_CGROUP };
        let fits = words::LAYER_OWN + own <= end;
        let mut free = if fits { words::LAYER_OWN } else { words::ARRIVAL_INTERFACE_INDEX };
        let mut fields: Vec<FieldWords> = Vec::with_capacity(layer.fields.len());
        for field in layer.all_fields() {
            let (count, mut encoding) = shape(field);
            if field.field == FieldId::ALE_USER_ID {
                encoding = Encoding::User;
            }
            let taken = |first| fields.iter().any(|other| other.first == first);
            let first = match common_word(field.field).filter(|&first| !taken(first)) {
                Some(first) => first,
                None => {
                    free += count;
                    free - count
                }
            };
            fields.push(FieldWords { field: field.field, first, count, encoding });
        }
        Self { fields }
    }

    /// Every field of the layer, in the layer's order, then ours.
    #[must_use]
    pub fn fields(&self) -> &[FieldWords] {
        &self.fields
    }

    /// The words of a field; `None` where the layer does not have it.
    #[must_use]
    pub fn field(&self, field: FieldId) -> Option<FieldWords> {
        self.fields.iter().copied().find(|words| words.field == field)
    }
}

/// How many words a field takes, and how they are to be read.
fn shape(field: &LayerField) -> (usize, Encoding) {
    match field.data_type {
        DataType::Uint64 | DataType::ByteArray6 => (2, Encoding::Number),
        DataType::ByteArray16 => (4, Encoding::Number),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => (1, Encoding::Number),
        _ => (1, Encoding::Class),
    }
}

/// The word that a field has at every layer, for the fields that have one.
fn common_word(field: FieldId) -> Option<usize> {
    Some(match field {
        FieldId::IP_PROTOCOL => words::IP_PROTOCOL,
        FieldId::IP_LOCAL_PORT => words::IP_LOCAL_PORT,
        FieldId::IP_REMOTE_PORT => words::IP_REMOTE_PORT,
        FieldId::FLAGS => words::FLAGS,
        FieldId::IP_LOCAL_ADDRESS | FieldId::IP_SOURCE_ADDRESS => words::IP_LOCAL_ADDRESS,
        FieldId::IP_REMOTE_ADDRESS | FieldId::IP_DESTINATION_ADDRESS => words::IP_REMOTE_ADDRESS,
        FieldId::ALE_APP_ID => words::ALE_APP_ID,
        FieldId::ALE_USER_ID => words::ALE_USER_ID,
        FieldId::INTERFACE_INDEX => words::INTERFACE_INDEX,
        FieldId::INTERFACE_TYPE => words::INTERFACE_TYPE,
        FieldId::TUNNEL_TYPE => words::TUNNEL_TYPE,
        FieldId::IP_LOCAL_INTERFACE | FieldId::IP_FORWARD_INTERFACE => words::IP_LOCAL_INTERFACE,
        FieldId::SUB_INTERFACE_INDEX | FieldId::SOURCE_SUB_INTERFACE_INDEX => words::SUB_INTERFACE_INDEX,
        FieldId::IP_LOCAL_ADDRESS_TYPE => words::IP_LOCAL_ADDRESS_TYPE,
        FieldId::IP_DESTINATION_ADDRESS_TYPE => words::IP_DESTINATION_ADDRESS_TYPE,
        FieldId::COMPARTMENT_ID => words::COMPARTMENT_ID,
        FieldId::DIRECTION => words::DIRECTION,
        FieldId::REAUTHORIZE_REASON => words::REAUTHORIZE_REASON,
        FieldId::ALE_ORIGINAL_APP_ID => words::ALE_ORIGINAL_APP_ID,
        FieldId::ARRIVAL_INTERFACE_INDEX | FieldId::SOURCE_INTERFACE_INDEX => words::ARRIVAL_INTERFACE_INDEX,
        FieldId::ARRIVAL_INTERFACE_TYPE => words::ARRIVAL_INTERFACE_TYPE,
        FieldId::ARRIVAL_TUNNEL_TYPE => words::ARRIVAL_TUNNEL_TYPE,
        FieldId::IP_ARRIVAL_INTERFACE | FieldId::IP_PHYSICAL_ARRIVAL_INTERFACE => words::IP_ARRIVAL_INTERFACE,
        FieldId::NEXTHOP_INTERFACE_INDEX | FieldId::DESTINATION_INTERFACE_INDEX => words::NEXTHOP_INTERFACE_INDEX,
        FieldId::NEXTHOP_INTERFACE_TYPE => words::NEXTHOP_INTERFACE_TYPE,
        FieldId::NEXTHOP_TUNNEL_TYPE => words::NEXTHOP_TUNNEL_TYPE,
        FieldId::IP_NEXTHOP_INTERFACE | FieldId::IP_PHYSICAL_NEXTHOP_INTERFACE => words::IP_NEXTHOP_INTERFACE,
        FieldId::NEXTHOP_SUB_INTERFACE_INDEX | FieldId::DESTINATION_SUB_INTERFACE_INDEX => {
            words::NEXTHOP_SUB_INTERFACE_INDEX
        }
        FieldId::ORIGINAL_ICMP_TYPE => words::ORIGINAL_ICMP_TYPE,
        FieldId::LINUX_CGROUP => words::LINUX_CGROUP,
        FieldId::LINUX_SYSTEMD_UNIT => words::LINUX_SYSTEMD_UNIT,
        FieldId::LINUX_CONTAINER => words::LINUX_CONTAINER,
        FieldId::LINUX_NETWORK_NAMESPACE => words::LINUX_NETWORK_NAMESPACE,
        _ => return None,
    })
}

/// What it means when a field's value is [`UNKNOWN`](crate::UNKNOWN) at a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It will be known at the first packet.
    Late,
    /// It could not be read.
    Unreadable,
}

/// Whether a shim may say that a field's value is unknown, and what that means.
///
/// At connect neither the source address nor the interface is chosen yet, unless the socket was bound. Identity and
/// what is known of an interface can fail to be read.
#[must_use]
pub fn unknown(layer: LayerId, field: FieldId) -> Option<Unknown> {
    let connects = matches!(layer, LayerId::ALE_AUTH_CONNECT_V4 | LayerId::ALE_AUTH_CONNECT_V6);
    let redirects = matches!(layer, LayerId::ALE_CONNECT_REDIRECT_V4 | LayerId::ALE_CONNECT_REDIRECT_V6);
    match field {
        FieldId::IP_LOCAL_ADDRESS | FieldId::IP_LOCAL_ADDRESS_TYPE | FieldId::IP_LOCAL_PORT if connects => {
            Some(Unknown::Late)
        }
        // whether to redirect is asked before the source is chosen, and never again
        FieldId::IP_LOCAL_ADDRESS | FieldId::IP_LOCAL_ADDRESS_TYPE | FieldId::IP_LOCAL_PORT if redirects => {
            Some(Unknown::Unreadable)
        }
        FieldId::INTERFACE_INDEX
        | FieldId::INTERFACE_TYPE
        | FieldId::TUNNEL_TYPE
        | FieldId::IP_LOCAL_INTERFACE
        | FieldId::SUB_INTERFACE_INDEX
        | FieldId::NEXTHOP_INTERFACE_INDEX
        | FieldId::NEXTHOP_INTERFACE_TYPE
        | FieldId::NEXTHOP_TUNNEL_TYPE
        | FieldId::IP_NEXTHOP_INTERFACE
        | FieldId::NEXTHOP_SUB_INTERFACE_INDEX => Some(if connects { Unknown::Late } else { Unknown::Unreadable }),
        FieldId::ARRIVAL_INTERFACE_INDEX
        | FieldId::ARRIVAL_INTERFACE_TYPE
        | FieldId::ARRIVAL_TUNNEL_TYPE
        | FieldId::IP_ARRIVAL_INTERFACE
        | FieldId::IP_FORWARD_INTERFACE
        | FieldId::IP_PHYSICAL_ARRIVAL_INTERFACE
        | FieldId::IP_PHYSICAL_NEXTHOP_INTERFACE
        | FieldId::ALE_APP_ID
        | FieldId::ALE_ORIGINAL_APP_ID
        | FieldId::ALE_USER_ID
        | FieldId::LINUX_CGROUP
        | FieldId::LINUX_SYSTEMD_UNIT
        | FieldId::LINUX_CONTAINER
        | FieldId::LINUX_NETWORK_NAMESPACE => Some(Unknown::Unreadable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_every_layer_fit_and_do_not_overlap() {
        for layer in Layer::all() {
            let mut taken = [""; WORDS];
            if layer.field(FieldId::ALE_USER_ID).is_some() {
                taken[words::GROUPS] = "groups";
                taken[words::GROUPS + 1] = "groups";
            }
            for field in Schema::of(layer.id).fields() {
                for place in &mut taken[field.first..field.first + field.count] {
                    assert_eq!(*place, "", "{} {}", layer.name, field.field);
                    *place = field.field.name();
                }
            }
        }
    }

    #[test]
    fn a_field_is_unknown_when_one_of_its_words_is() {
        let schema = Schema::of(LayerId::ALE_AUTH_CONNECT_V4);
        let interface = schema.field(FieldId::IP_LOCAL_INTERFACE).unwrap();
        let mut values = Values::new();
        assert!(!interface.is_unknown(&values), "empty is not unknown");
        values.set_u64(words::IP_LOCAL_INTERFACE, 7);
        assert!(!interface.is_unknown(&values));
        values.set_unknown(words::IP_LOCAL_INTERFACE + 1);
        assert!(interface.is_unknown(&values));
        let unknown = schema.fields().iter().filter(|field| field.is_unknown(&values));
        assert_eq!(unknown.map(|field| field.field).collect::<Vec<_>>(), [FieldId::IP_LOCAL_INTERFACE]);
    }

    #[test]
    fn common_fields_stand_at_the_same_word_everywhere() {
        for layer in [LayerId::ALE_AUTH_CONNECT_V6, LayerId::INBOUND_TRANSPORT_V6] {
            let schema = Schema::of(layer);
            assert_eq!(schema.field(FieldId::IP_REMOTE_ADDRESS).unwrap().first, words::IP_REMOTE_ADDRESS);
            assert_eq!(schema.field(FieldId::IP_REMOTE_ADDRESS).unwrap().count, 4);
            assert_eq!(schema.field(FieldId::IP_REMOTE_PORT).unwrap().first, words::IP_REMOTE_PORT);
        }
        assert_eq!(Schema::of(LayerId::INBOUND_IPPACKET_V4).field(FieldId::IP_PROTOCOL), None);
    }
}
