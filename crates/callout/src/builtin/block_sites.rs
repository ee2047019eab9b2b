//! `openwfp.block-sites`: ends connections to web sites, by the name that the client asks for.

use std::sync::{Arc, OnceLock};

use openwfp_model::{Data, Guid};

use super::http::{Head, request};
use super::settings::{Settings, SettingsError};
use super::tls::{Hello, client_hello};
use super::{BuiltIn, Setting, layers};
use crate::{Callout, Classification, ClassifyOut, Direction, Platform, Registration, Report, StreamAction};

const LAYERS: &[&str] = &["STREAM"];

pub(super) const BUILT_IN: BuiltIn = BuiltIn {
    name: "openwfp.block-sites",
    about: "ends connections to web sites, by the name in the TLS ClientHello or the Host of the HTTP request",
    layers: LAYERS,
    settings: &[
        Setting {
            name: "sites",
            kind: "names; `*.name` for all below a name",
            default: None,
            about: "the sites that are blocked",
        },
        Setting {
            name: "block_nameless",
            kind: "true or false",
            default: Some("false"),
            about: "whether TLS without a name, and HTTP without a host, is blocked too",
        },
        Setting {
            name: "block_others",
            kind: "true or false",
            default: Some("false"),
            about: "whether connections that are neither TLS nor HTTP are blocked too",
        },
    ],
    make: |settings| Ok(Arc::new(BlockSites::new(settings)?)),
};

/// The callout. What cannot be read though it begins like TLS or HTTP is blocked.
///
/// Of a TLS connection the ClientHello is looked at; the rest of the connection is not shown to it any more. Of HTTP every request is
/// looked at that begins where data begin, or right behind another request's head.
pub struct BlockSites {
    sites: Vec<String>,
    block_nameless: bool,
    block_others: bool,
    platform: OnceLock<Platform>,
}

/// What is known about a portion.
enum Seen {
    /// A name is asked for: the protocol, the name, and how many bytes say so (none: all that is to be seen).
    Names(&'static str, Vec<String>, usize),
    Nameless(&'static str),
    Other,
    Broken(&'static str),
    Needs(usize),
}

impl BlockSites {
    fn new(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let sites = settings.texts("sites")?.ok_or(SettingsError::Missing("sites"))?;
        Ok(Self {
            sites: sites.into_iter().map(plain).collect(),
            block_nameless: settings.boolean("block_nameless")?.unwrap_or(false),
            block_others: settings.boolean("block_others")?.unwrap_or(false),
            platform: OnceLock::new(),
        })
    }

    fn is_blocked(&self, name: &str) -> bool {
        self.sites.iter().any(|site| match site.strip_prefix("*.") {
            Some(parent) => name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => name == site,
        })
    }

    fn end(&self, out: &mut ClassifyOut, protocol: &str, site: &str) {
        out.block();
        out.stream(StreamAction::DropConnection);
        if let Some(platform) = self.platform.get() {
            let text = |text: &str| Data::Text(text.to_owned());
            platform.report(Report::entries([
                ("action", text("block")),
                ("protocol", text(protocol)),
                ("site", text(site)),
            ]));
        }
    }
}

/// A name as it is compared: lower case, without the final dot.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn look(bytes: &[u8], first: bool) -> Seen {
    let name = |name: &[u8]| plain(&String::from_utf8_lossy(name));
    let mut joined = Vec::new();
    if first {
        match client_hello(bytes, &mut joined) {
            Hello::Needs(more) => return Seen::Needs(more),
            Hello::Name(found) => return Seen::Names("tls", vec![name(found)], 0),
            Hello::Nameless => return Seen::Nameless("tls"),
            Hello::Broken => return Seen::Broken("tls"),
            Hello::NotTls => {}
        }
    }
    match request(bytes) {
        Head::NotHttp => Seen::Other,
        Head::Needs => Seen::Needs(1),
        Head::Broken => Seen::Broken("http"),
        Head::Hosts([None, None], _) => Seen::Nameless("http"),
        Head::Hosts(hosts, length) => Seen::Names("http", hosts.into_iter().flatten().map(name).collect(), length),
    }
}

impl Callout for BlockSites {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("built-in callout", BUILT_IN.name), BUILT_IN.name).at(layers(LAYERS))
    }

    fn registered(&self, platform: &Platform) {
        let _ = self.platform.set(platform.clone());
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let Some(stream) = event.stream() else { return };
        // Clients speak first. Who the client is, the field says.
        let client = event.values.direction().unwrap_or(Direction::Outbound);
        if stream.direction != client || stream.bytes.is_empty() {
            return out.permit();
        }
        let first = stream.offset == 0 && stream.missed == 0;
        match look(stream.bytes, first) {
            Seen::Needs(_) if stream.is_last() => self.end(out, "cut", ""),
            Seen::Needs(more) => out.stream(StreamAction::NeedMoreData(more)),
            Seen::Names(protocol, names, length) => match names.iter().find(|name| self.is_blocked(name)) {
                Some(site) => self.end(out, protocol, site),
                // A TLS connection speaks to one site; a connection of HTTP may go on to another.
                None if length == 0 => out.stream(StreamAction::AllowConnection),
                None => {
                    out.permit();
                    out.enforce(length);
                }
            },
            Seen::Nameless(protocol) if self.block_nameless => self.end(out, protocol, ""),
            Seen::Broken(protocol) => self.end(out, protocol, ""),
            Seen::Other if first && self.block_others => self.end(out, "other", ""),
            Seen::Other if first => out.stream(StreamAction::AllowConnection),
            Seen::Nameless(_) | Seen::Other => out.permit(),
        }
    }
}
