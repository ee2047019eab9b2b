//! The incoming values of an event, typed and by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openwfp_engine::{EMPTY, Encoding, Schema, UNKNOWN, Values, decode, words};
use openwfp_model::{ConditionFlags, FieldId, IpVersion, LayerId, Value};
use openwfp_packet::flow::Direction;

/// One incoming value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncomingValue {
    /// The event has no such value, or the layer no such field.
    Empty,
    /// The value exists but is not known: not yet, or it could not be read.
    Unknown,
    /// It is this.
    Known(Value),
}

/// What filters could test about an event (`FWPS_INCOMING_VALUES`).
#[derive(Clone, Copy, Debug)]
pub struct IncomingValues<'a> {
    layer: LayerId,
    words: &'a Values,
    named: &'a [(FieldId, Value)],
}

impl<'a> IncomingValues<'a> {
    /// The values at a layer. `named` holds those that are no numbers: in `words` they are numbers of classes, which mean
    /// something to the policy alone.
    #[must_use]
    pub const fn new(layer: LayerId, words: &'a Values, named: &'a [(FieldId, Value)]) -> Self {
        Self { layer, words, named }
    }

    /// The layer.
    #[must_use]
    pub const fn layer(&self) -> LayerId {
        self.layer
    }

    /// The words, as the engine has them.
    #[must_use]
    pub const fn words(&self) -> &'a Values {
        self.words
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: FieldId) -> IncomingValue {
        let Some(place) = Schema::of(self.layer).field(field) else { return IncomingValue::Empty };
        match self.words.get(place.first) {
            UNKNOWN => return IncomingValue::Unknown,
            EMPTY => return IncomingValue::Empty,
            _ => {}
        }
        if let Some((_, value)) = self.named.iter().find(|(named, _)| *named == field) {
            return IncomingValue::Known(value.clone());
        }
        match decode(self.layer, field, self.words) {
            Some(value) => IncomingValue::Known(value),
            // a class without a name, or a number of which a part is missing
            None if place.encoding == Encoding::Class => IncomingValue::Unknown,
            None => IncomingValue::Empty,
        }
    }

    fn word(&self, field: FieldId) -> Option<u32> {
        let place = Schema::of(self.layer).field(field)?;
        u32::try_from(self.words.get(place.first)).ok()
    }

    fn address(&self, first: usize) -> Option<IpAddr> {
        let word = |number: usize| u32::try_from(self.words.get(first + number)).ok();
        match self.layer.layer().ip_version()? {
            IpVersion::V4 => Some(Ipv4Addr::from(word(0)?).into()),
            IpVersion::V6 => {
                let words = [word(0)?, word(1)?, word(2)?, word(3)?];
                Some(Ipv6Addr::from(words.into_iter().fold(0, |all, word| all << 32 | u128::from(word))).into())
            }
        }
    }

    /// The local address, or the source where the layer has that instead.
    #[must_use]
    pub fn local_address(&self) -> Option<IpAddr> {
        self.address(words::IP_LOCAL_ADDRESS)
    }

    /// The remote address, or the destination where the layer has that instead.
    #[must_use]
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.address(words::IP_REMOTE_ADDRESS)
    }

    /// The local port.
    #[must_use]
    pub fn local_port(&self) -> Option<u16> {
        self.word(FieldId::IP_LOCAL_PORT)?.try_into().ok()
    }

    /// The remote port.
    #[must_use]
    pub fn remote_port(&self) -> Option<u16> {
        self.word(FieldId::IP_REMOTE_PORT)?.try_into().ok()
    }

    /// The protocol of the payload.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        self.word(FieldId::IP_PROTOCOL)?.try_into().ok()
    }

    /// The field `DIRECTION`: who opened the connection, where the layer knows connections.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        match self.word(FieldId::DIRECTION)? {
            0 => Some(Direction::Outbound),
            1 => Some(Direction::Inbound),
            _ => None,
        }
    }

    /// The flags; none where the layer has no such field.
    #[must_use]
    pub fn flags(&self) -> ConditionFlags {
        ConditionFlags::from_bits_retain(self.word(FieldId::FLAGS).unwrap_or(0))
    }

    /// Whether a flow that was authorized before is authorized again.
    #[must_use]
    pub fn is_reauthorize(&self) -> bool {
        self.flags().contains(ConditionFlags::IS_REAUTHORIZE)
    }
}
