//! What is said beside the rings: one JSON object in each packet of the control socket, with one member that says what it is.

use std::collections::BTreeMap;

use openwfp_model::{Data, Guid};
use openwfp_packet::time::Timestamp;
use serde_json::{Value as Json, json};

use super::data::{guid, of_filter, of_report, of_table, text, to_filter, to_report, to_table};
use crate::{Filter, FlowHandle, Report};

/// The longest packet of the control socket that is taken, in bytes.
pub const LONGEST: usize = 128 << 10;

/// A packet of the control socket that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was said on the control socket makes no sense")]
pub struct ControlError;

/// The callout that a policy wants of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The key under which filters name it.
    pub key: Guid,
    /// The name that the policy gives it.
    pub name: String,
    /// The built-in callout that it is.
    pub uses: Option<String>,
    /// Its settings.
    pub settings: BTreeMap<String, Data>,
}

impl Wanted {
    /// A callout of a policy.
    #[must_use]
    pub const fn new(key: Guid, name: String, uses: Option<String>, settings: BTreeMap<String, Data>) -> Self {
        Self { key, name, uses, settings }
    }
}

/// What `wfp` says to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToHost {
    /// The callout that is wanted: the first that is said.
    Callout(Wanted),
    /// A filter names it.
    Filter(Filter),
    /// All filters that there are have been said. The host answers with [`FromHost::Ready`] or [`FromHost::Refused`].
    Start,
    /// The filter with this id is gone.
    FilterDeleted(u64),
    /// A flow has ended.
    FlowEnded(FlowHandle),
}

/// What a host says to `wfp`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromHost {
    /// The callout is registered.
    Ready,
    /// It is not, and why.
    Refused(String),
    /// A filter that came later is refused: the callout is not asked for it.
    FilterRefused(u64, String),
    /// The callout has panicked; nobody answers for it any more.
    Failed,
    /// The callout reports something, about a flow or none.
    Report(Option<FlowHandle>, Timestamp, Report),
}

impl ToHost {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json = match self {
            Self::Callout(wanted) => json!({"callout": {
                "key": wanted.key.to_string(), "name": wanted.name, "uses": wanted.uses, "settings": of_table(&wanted.settings),
            }}),
            Self::Filter(filter) => json!({"filter": of_filter(filter)}),
            Self::Start => json!({"start": {}}),
            Self::FilterDeleted(id) => json!({"filter_deleted": {"id": id}}),
            Self::FlowEnded(flow) => json!({"flow_ended": {"flow": flow.get()}}),
        };
        json.to_string().into_bytes()
    }

    /// What a packet says.
    ///
    /// # Errors
    /// Nothing that makes sense.
    pub fn decode(packet: &[u8]) -> Result<Self, ControlError> {
        let json: Json = serde_json::from_slice(packet).map_err(|_| ControlError)?;
        let (name, said) = only(&json).ok_or(ControlError)?;
        let decoded = match name {
            "callout" => wanted(said).map(Self::Callout),
            "filter" => to_filter(said).map(Self::Filter),
            "start" => Some(Self::Start),
            "filter_deleted" => said.get("id").and_then(Json::as_u64).map(Self::FilterDeleted),
            "flow_ended" => said.get("flow").and_then(Json::as_u64).map(FlowHandle::new).map(Self::FlowEnded),
            _ => None,
        };
        decoded.ok_or(ControlError)
    }
}

fn only(json: &Json) -> Option<(&str, &Json)> {
    let object = json.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(name, said)| (name.as_str(), said))
}

fn wanted(json: &Json) -> Option<Wanted> {
    let settings = to_table(json.get("settings")?.as_object()?)?;
    Some(Wanted { key: guid(json, "key")?, name: text(json, "name")?, uses: text(json, "uses"), settings })
}

impl FromHost {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json = match self {
            Self::Ready => json!({"ready": {}}),
            Self::Refused(why) => json!({"refused": {"why": why}}),
            Self::FilterRefused(id, why) => json!({"filter_refused": {"id": id, "why": why}}),
            Self::Failed => json!({"failed": {}}),
            Self::Report(flow, time, report) => json!({"report": {
                "flow": flow.map(FlowHandle::get), "time": time.nanoseconds(), "report": of_report(report),
            }}),
        };
        json.to_string().into_bytes()
    }

    /// What a packet says.
    ///
    /// # Errors
    /// Nothing that makes sense.
    pub fn decode(packet: &[u8]) -> Result<Self, ControlError> {
        let json: Json = serde_json::from_slice(packet).map_err(|_| ControlError)?;
        let (name, said) = only(&json).ok_or(ControlError)?;
        let decoded = match name {
            "ready" => Some(Self::Ready),
            "refused" => text(said, "why").map(Self::Refused),
            "filter_refused" => said
                .get("id")
                .and_then(Json::as_u64)
                .zip(text(said, "why"))
                .map(|(id, why)| Self::FilterRefused(id, why)),
            "failed" => Some(Self::Failed),
            "report" => reported(said),
            _ => None,
        };
        decoded.ok_or(ControlError)
    }
}

fn reported(json: &Json) -> Option<FromHost> {
    let flow = match json.get("flow")? {
        Json::Null => None,
        flow => Some(FlowHandle::new(flow.as_u64()?)),
    };
    let time = Timestamp::from_nanoseconds(json.get("time")?.as_u64()?);
    Some(FromHost::Report(flow, time, to_report(json.get("report")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DnsReport, ProviderContext};
    use openwfp_model::{Action, CalloutKind, FilterFlags, LayerId};
    use proptest::prelude::*;

    fn table() -> BTreeMap<String, Data> {
        let list = Data::List(vec![Data::Text("a".into()), Data::Bytes(vec![0, 255]), Data::Boolean(true)]);
        let inner = Data::Table([("base64".to_owned(), Data::Integer(-7)), ("list".to_owned(), list)].into());
        [("inner".to_owned(), inner), ("text".to_owned(), Data::Text("\"\u{0}ü".into()))].into()
    }

    #[test]
    fn what_is_said_is_understood() {
        let key = Guid::named("test", "x");
        let filter = Filter::new(u64::MAX, key, "a filter", LayerId::DATAGRAM_DATA_V6, CalloutKind::Inspection)
            .with_flags(FilterFlags::CLEAR_ACTION_RIGHT)
            .in_sublayer(Guid::named("test", "y"), 1 << 63);
        let context = ProviderContext { key, name: "context".into(), data: Data::Table(table()) };
        let said = [
            ToHost::Callout(Wanted::new(key, "name".into(), Some("openwfp.x".into()), table())),
            ToHost::Callout(Wanted::new(key, String::new(), None, BTreeMap::new())),
            ToHost::Filter(filter.clone()),
            ToHost::Filter(filter.with_context(context)),
            ToHost::Start,
            ToHost::FilterDeleted(3),
            ToHost::FlowEnded(FlowHandle::new(u64::MAX)),
        ];
        for said in said {
            assert_eq!(ToHost::decode(&said.encode()), Ok(said));
        }
        let dns = DnsReport {
            name: "example.com".into(),
            record_type: "A".into(),
            answers: vec!["192.0.2.1".into()],
            code: None,
            latency_us: Some(7),
            server: "192.0.2.53:53".into(),
            action: Action::Block,
            process: Some((1, None)),
        };
        let time = Timestamp::from_nanoseconds(5);
        let said = [
            FromHost::Ready,
            FromHost::Refused("because".into()),
            FromHost::FilterRefused(4, "it".into()),
            FromHost::Failed,
            FromHost::Report(None, time, Report::Callout(table())),
            FromHost::Report(Some(FlowHandle::new(9)), time, Report::Dns(dns)),
        ];
        for said in said {
            assert_eq!(FromHost::decode(&said.encode()), Ok(said));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        for packet in [
            &b""[..],
            b"{}",
            b"[]",
            b"{\"ready\":{},\"failed\":{}}",
            b"{\"report\":{\"flow\":-1}}",
            b"{\"filter\":{\"id\":1}}",
            b"{\"report\":{\"flow\":null,\"time\":1,\"report\":{\"entries\":{\"x\":null}}}}",
            &deep,
        ] {
            assert_eq!(FromHost::decode(packet), Err(ControlError));
            assert_eq!(ToHost::decode(packet), Err(ControlError));
        }
    }

    proptest! {
        #[test]
        fn no_packet_harms_who_reads_it(packet in proptest::collection::vec(any::<u8>(), 0..64), text in "\\{\"(report|filter|callout)\":\\{[\"a-z:,0-9{}\\[\\]]{0,40}\\}\\}") {
            for packet in [&packet[..], text.as_bytes()] {
                let _ = (FromHost::decode(packet), ToHost::decode(packet));
            }
        }
    }
}
