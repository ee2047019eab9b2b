//! `openwfp.find-patterns`: looks for byte patterns in streams, and ends the connection where it finds one.

use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use openwfp_model::{Data, Guid};

use super::settings::{Settings, SettingsError};
use super::{BuiltIn, Setting, layers};
use crate::{Callout, Classification, ClassifyOut, Platform, Registration, Report, StreamAction};

const LAYERS: &[&str] = &["STREAM"];

pub(super) const BUILT_IN: BuiltIn = BuiltIn {
    name: "openwfp.find-patterns",
    about: "looks for byte patterns in both directions of connections, and ends a connection where it finds one",
    layers: LAYERS,
    settings: &[
        Setting {
            name: "patterns",
            kind: "texts or bytes",
            default: None,
            about: "what is looked for; each has 1 to 4096 bytes",
        },
        Setting {
            name: "ignore_case",
            kind: "true or false",
            default: Some("false"),
            about: "whether letters of ASCII are compared without their case",
        },
        Setting {
            name: "end",
            kind: "true or false",
            default: Some("true"),
            about: "whether the connection is ended; otherwise it is reported alone",
        },
    ],
    make: |settings| Ok(Arc::new(FindPatterns::new(settings)?)),
};

/// No pattern is longer.
const LONGEST: usize = 4096;

/// The callout. A pattern is found wherever segments are cut: of each direction so much is remembered as the longest pattern may have
/// begun with. The last byte of a pattern never passes; those before it may have.
pub struct FindPatterns {
    patterns: Vec<Vec<u8>>,
    automaton: AhoCorasick,
    longest: usize,
    end: bool,
    platform: OnceLock<Platform>,
}

/// The last bytes of each direction: what has been sent, what has been received.
#[derive(Default)]
struct Tails([Vec<u8>; 2]);

impl FindPatterns {
    fn new(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let given = settings.byte_strings("patterns")?.ok_or(SettingsError::Missing("patterns"))?;
        let wrong = SettingsError::Wrong { name: "patterns", expected: "patterns of 1 to 4096 bytes" };
        let patterns: Vec<Vec<u8>> = given.into_iter().map(<[u8]>::to_vec).collect();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        if longest > LONGEST || patterns.is_empty() || patterns.iter().any(Vec::is_empty) {
            return Err(wrong);
        }
        let ignore_case = settings.boolean("ignore_case")?.unwrap_or(false);
        let automaton = AhoCorasickBuilder::new().ascii_case_insensitive(ignore_case).build(&patterns);
        Ok(Self {
            automaton: automaton.map_err(|_| wrong)?,
            patterns,
            longest,
            end: settings.boolean("end")?.unwrap_or(true),
            platform: OnceLock::new(),
        })
    }

    fn report(&self, direction: &str, pattern: &[u8], offset: u64) {
        if let Some(platform) = self.platform.get() {
            platform.report(Report::entries([
                ("action", Data::Text(if self.end { "block" } else { "permit" }.to_owned())),
                ("direction", Data::Text(direction.to_owned())),
                ("offset", Data::Integer(i64::try_from(offset).unwrap_or(i64::MAX))),
                ("pattern", Data::Text(pattern.escape_ascii().to_string())),
            ]));
        }
    }

    fn decide(&self, out: &mut ClassifyOut) {
        if self.end {
            out.block();
            out.stream(StreamAction::DropConnection);
        }
    }
}

impl Callout for FindPatterns {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("built-in callout", BUILT_IN.name), BUILT_IN.name).at(layers(LAYERS))
    }

    fn registered(&self, platform: &Platform) {
        let _ = self.platform.set(platform.clone());
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let Some(stream) = event.stream() else { return };
        if stream.bytes.is_empty() {
            return out.permit();
        }
        let number = stream.direction as usize;
        let known = event.flow_context::<Tails>();
        let is_new = known.is_none();
        let mut tail = known.map(|tails| core::mem::take(&mut tails.0[number])).unwrap_or_default();
        if stream.missed > 0 {
            tail.clear();
        }
        let before = tail.len();
        tail.extend_from_slice(stream.bytes);
        // What ends in the old bytes was found before.
        let found = self.automaton.find_overlapping_iter(&tail).find(|found| found.end() > before);
        if let Some(found) = found {
            let offset = (stream.offset + found.start() as u64).saturating_sub(before as u64);
            let direction = ["outbound", "inbound"][number];
            self.report(direction, &self.patterns[found.pattern().as_usize()], offset);
            self.decide(out);
        } else {
            out.permit();
        }
        tail.drain(..tail.len().saturating_sub(self.longest - 1));
        if !is_new {
            if let Some(tails) = event.flow_context::<Tails>() {
                tails.0[number] = tail;
            }
            return;
        }
        let mut tails = Tails::default();
        tails.0[number] = tail;
        if event.associate(tails).is_err() {
            // A connection that cannot be followed could hold anything.
            self.decide(out);
        }
    }
}
