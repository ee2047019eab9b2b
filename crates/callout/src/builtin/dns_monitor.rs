//! `openwfp.dns-monitor`: reports every question to a name server, who asked it, and what came of it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openwfp_model::{Action, Guid, LayerId};

use super::dns_names::{Message, code_name, read, type_name};
use super::settings::{Settings, SettingsError};
use super::{BuiltIn, Setting, layers};
use crate::{
    Callout, Classification, ClassifyOut, Direction, DnsReport, FlowContext, FlowHandle, Platform, Registration,
    Report, Timestamp,
};

const LAYERS: &[&str] = &["DATAGRAM_DATA"];

pub(super) const BUILT_IN: BuiltIn = BuiltIn {
    name: "openwfp.dns-monitor",
    about: "reports every DNS query over UDP with its answers, and the process that asked where that is known",
    layers: LAYERS,
    settings: &[Setting {
        name: "timeout_s",
        kind: "a number from 1 to 3600",
        default: Some("10"),
        about: "after so many seconds a query without an answer is reported as such",
    }],
    make: |settings| Ok(Arc::new(DnsMonitor::new(settings)?)),
};

/// So many questions of one flow wait for answers; then the oldest is reported as unanswered.
const MOST_WAITING: usize = 256;

/// The callout. It looks on and changes nothing. Which traffic is DNS its filters say; what is no message of DNS is passed over.
pub struct DnsMonitor {
    timeout: Duration,
    platform: OnceLock<Platform>,
}

/// The questions of a flow that wait for their answers.
struct Waiting(Vec<Question>);

#[derive(Clone)]
struct Question {
    message: Message,
    asked: Timestamp,
    server: SocketAddr,
    process: Option<(u32, Option<String>)>,
}

impl DnsMonitor {
    fn new(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let seconds = settings.number("timeout_s", 1..=3600, "a number from 1 to 3600")?.unwrap_or(10);
        Ok(Self { timeout: Duration::from_secs(seconds.unsigned_abs()), platform: OnceLock::new() })
    }

    fn report(&self, question: Question, answer: Option<(Message, Timestamp)>) {
        let Question { message, asked, server, process } = question;
        let latency = answer.as_ref().map(|(_, at)| at.since(asked));
        let (code, answers) = match answer {
            Some((answer, _)) => (Some(code_name(answer.code)), answer.answers),
            None => (None, Vec::new()),
        };
        if let Some(platform) = self.platform.get() {
            platform.report(Report::Dns(DnsReport {
                name: message.name,
                record_type: type_name(message.record_type),
                answers,
                code,
                latency_us: latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
                server: server.to_string(),
                action: Action::Permit,
                process,
            }));
        }
    }

    fn report_old(&self, waiting: &mut Waiting, now: Timestamp) {
        let old = |question: &mut Question| now.since(question.asked) >= self.timeout;
        for question in waiting.0.extract_if(.., old) {
            self.report(question, None);
        }
        if waiting.0.len() > MOST_WAITING {
            self.report(waiting.0.remove(0), None);
        }
    }
}

/// The question that a message at hand asks.
fn question(event: &Classification<'_>, message: Message) -> Option<Question> {
    let server = SocketAddr::new(event.values.remote_address()?, event.values.remote_port()?);
    let process = event.metadata.process.map(|process| (process.pid, process.path.map(str::to_owned)));
    Some(Question { message, asked: event.metadata.time, server, process })
}

impl Callout for DnsMonitor {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("built-in callout", BUILT_IN.name), BUILT_IN.name).at(layers(LAYERS))
    }

    fn registered(&self, platform: &Platform) {
        let _ = self.platform.set(platform.clone());
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        out.continue_();
        let now = event.metadata.time;
        if let Some(waiting) = event.flow_context::<Waiting>() {
            self.report_old(waiting, now);
        }
        let Some(message) = event.packet().and_then(|packet| read(packet.payload())) else { return };
        match event.metadata.direction {
            Some(Direction::Outbound) if !message.is_response => {
                let Some(question) = question(event, message) else { return };
                match event.flow_context::<Waiting>() {
                    Some(waiting) => waiting.0.push(question),
                    None => {
                        // It is reported when the context comes back, at the latest; or here, where it is not taken.
                        if event.associate(Waiting(vec![question.clone()])).is_err() {
                            self.report(question, None);
                        }
                    }
                }
            }
            Some(Direction::Inbound) if message.is_response => {
                let Some(waiting) = event.flow_context::<Waiting>() else { return };
                let is_asked = |question: &Question| {
                    let asked = &question.message;
                    asked.id == message.id
                        && asked.record_type == message.record_type
                        && asked.name.eq_ignore_ascii_case(&message.name)
                };
                if let Some(place) = waiting.0.iter().position(is_asked) {
                    let question = waiting.0.remove(place);
                    self.report(question, Some((message, now)));
                }
            }
            _ => {}
        }
    }

    fn flow_delete(&self, _: LayerId, _: FlowHandle, context: FlowContext) {
        if let Ok(waiting) = context.downcast::<Waiting>() {
            waiting.0.into_iter().for_each(|question| self.report(question, None));
        }
    }
}
