//! Policy files: a policy as TOML or JSON, read and written.
//!
//! [`read`] takes either syntax, told apart by content, and reports every mistake of a file at once, each with the text
//! that it is about; [`write_toml`] and [`write_json`] write what `read` reads as an equal policy; [`json_schema`]
//! describes the format for editors.
//!
//! # The file
//! ```toml
//! provider = "acme"                       # optional: a name, or { name, description, key, flags, service }
//!
//! [[sublayer]]                            # optional; without one, a filter stands in the layer's default sublayer
//! name   = "acme.web"
//! weight = 0x8000                         # 0..=65535; absent: 0
//!
//! [[filter]]
//! name     = "curl may not speak plain HTTP"
//! layer    = "ALE_AUTH_CONNECT"           # a family name stands for _V4 and _V6; a list is allowed
//! sublayer = "acme.web"
//! weight   = 7                            # absent: automatic; 0..=15: a range, automatic inside; { exact = N }: 64 bits
//! action   = "block"                      # permit, block, continue, or { callout = "NAME", kind = "terminating" }
//! flags    = ["CLEAR_ACTION_RIGHT"]
//! errno    = "EACCES"
//! [filter.when]                           # fields AND-ed; a list is OR-ed
//! ALE_APP_ID        = "/usr/bin/curl"
//! IP_PROTOCOL       = "tcp"
//! IP_REMOTE_PORT    = [80, "8000-8099"]
//! IP_REMOTE_ADDRESS = { not = "127.0.0.0/8" }
//! FLAGS             = { none = ["IS_REAUTHORIZE"] }
//! ```
//! JSON has the same keys: `{"provider": …, "sublayer": […], "filter": […], "provider_context": […], "callout": […]}`.
//! Every object may have a `description`, a `key` (a GUID) and `flags`. A GUID is right wherever a name is; names of
//! the platform are right in any case, with or without their public prefix. Numbers that TOML cannot hold are strings,
//! in decimal or with `0x`.
//!
//! A filter hands over to a callout with `action = { callout = "NAME", kind = … }`; the kind is `terminating`,
//! `inspection` or `unknown`, and `unknown` where it is absent. `context = "NAME"` adds a provider context. These objects
//! are
//! ```toml
//! [[provider_context]]
//! name = "acme limits"
//! data = { bytes = 1000000 }              # or a string, a number, a list; bytes are { base64 = "…" }
//!
//! [[callout]]
//! name  = "acme scanner"
//! host  = "/usr/libexec/acme-callouts"    # the executable that serves it, and the user that it runs as; or, instead:
//! user  = "acme"                          # uses = "openwfp.dns-monitor", a built-in one. Neither: who registers serves it
//! layer = "STREAM_V4"                     # the only layer for its filters; absent: any
//! [callout.settings]
//! deep  = true
//! ```
//!
//! # Tests of a field
//! | written | means |
//! | --- | --- |
//! | `80`, `"https"`, `"10.0.0.0/8"` | equal, or in the network |
//! | `"8000-8099"`, `{ min = 8000, max = 8099 }` | in the range, ends included |
//! | `{ min = 1024 }`, `{ max = 1023 }`, `{ greater = 1023 }`, `{ less = 1024 }` | by order |
//! | `{ all = ["A", "B"] }`, `{ any = … }`, `{ none = … }` | bits, by name or as numbers |
//! | `{ prefix = … }` | the platform's PREFIX, see [`MatchType::Prefix`](crate::MatchType::Prefix) |
//! | `{ ignore_case = "text" }` | equal, in any case of letters |
//! | `{ empty = true }` | the field is explicitly empty |
//! | `{ not = … }` | the opposite of one value or test |
//!
//! `not` takes no list: conditions on one field are OR-ed, so that "not this" and "not that" together hold for nearly
//! everything.
//!
//! Users are names or numbers, `"group:adm"` or `{ group = "adm" }`, or a security descriptor in SDDL. Blobs of bytes
//! are text, or `{ hex = "…" }`. Text on a field of applications, which is otherwise a path, is `{ text = "…" }`.
//!
//! # Families of layers
//! A filter whose layers see IPv4 and IPv6 takes addresses of both: each goes to its layer. A layer at which a field is
//! left without a value gets no filter, as it could never match. The opposite of an address of the other version holds
//! for every address of this one, and becomes the condition that the address is in `0.0.0.0/0` or `::/0`.
//!
//! # Keys
//! An object without a `key` has one made from its provider, its kind and its name; a filter, from its provider, layer
//! and name and from how many filters of that name stood before it at that layer. So the same file gives the same keys,
//! always and everywhere.
//!
//! # Example
//! ```
//! use openwfp_model::policy_file::{self, NoMachine};
//!
//! let text = "[[filter]]\nname = 'no telnet'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = { IP_REMOTE_PROT = 23 }";
//! let wrong = policy_file::read("telnet.toml", text, &NoMachine).unwrap_err();
//! assert_eq!(
//!     wrong.render(false),
//!     "error: unknown field `IP_REMOTE_PROT`
//!  --> telnet.toml:5:10
//!   |
//! 5 | when = { IP_REMOTE_PROT = 23 }
//!   |          ^^^^^^^^^^^^^^ no layer has such a field
//!   |
//!   = help: did you mean `IP_REMOTE_PORT`?"
//! );
//!
//! let read = policy_file::read("telnet.toml", &text.replace("PROT", "PORT"), &NoMachine)?;
//! assert_eq!(read.policy.filters.len(), 2);
//! # Ok::<(), policy_file::Diagnostics>(())
//! ```

mod addresses;
mod conditions;
mod diagnostic;
mod filters;
mod input;
mod json;
mod layers;
mod named_numbers;
mod objects;
mod operand;
mod operators;
mod protocols;
mod reader;
mod render;
mod schema;
mod services;
mod toml;
mod toml_text;
mod tree;
mod write;
mod write_conditions;

pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, Span};
pub use schema::json_schema;
pub use write::{write_json, write_toml};

use std::collections::HashMap;

use crate::{ObjectKind, Policy, PolicyBuilder, PolicyError};

use input::Input;
use reader::Reader;
use tree::Tree;

/// What the reader asks the machine: the names of its users and groups, and where paths lead.
pub trait Resolver {
    /// The uid of a user.
    fn user(&self, name: &str) -> Option<u32>;

    /// The gid of a group.
    fn group(&self, name: &str) -> Option<u32>;

    /// The absolute path without symbolic links that an absolute path leads to, or why it leads nowhere.
    fn canonicalize(&self, path: &str) -> Result<String, String>;

    /// The whole id or name of the container of this name, id, or beginning of an id, or why there is none. Without a machine it is
    /// what is written.
    fn container(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    /// The inode number of the network namespace of this name or file, or why there is none.
    fn network_namespace(&self, text: &str) -> Result<u32, String> {
        Err(format!("unknown network namespace `{text}`"))
    }
}

/// A machine without users and groups, where every path leads to itself: for policies of other machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMachine;

impl Resolver for NoMachine {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }

    fn canonicalize(&self, path: &str) -> Result<String, String> {
        Ok(path.to_owned())
    }
}

/// A file that holds a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Read {
    /// The policy.
    pub policy: Policy,
    /// What is right, but probably not meant.
    pub warnings: Diagnostics,
}

/// The policy of a file, with warnings; or everything that is wrong with it, warnings included.
///
/// `name` is how messages call the file. A byte order mark at the start of the text is passed over.
pub fn read(name: &str, text: &str, resolver: &dyn Resolver) -> Result<Read, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (root, report) = match Input::of(text) {
        Input::Toml => toml::parse(text),
        Input::Json => json::parse(text),
        Input::Xml(at) => (None, vec![input::is_xml(at)]),
    };
    let mut reader = Reader::new(resolver, report);
    let policy = root.and_then(|root| match &root.value {
        Tree::Table(table) => reader.policy(table),
        _ => reader.wrong_kind(&root, "a policy", "an object"),
    });
    let errors = reader.errors();
    let report = Diagnostics::new(name, text, reader.into_report());
    match policy {
        Some(policy) if errors == 0 => Ok(Read { policy, warnings: report }),
        _ => Err(report),
    }
}

/// [`read`] for a file that need not be text: UTF-8, or UTF-16 with a byte order mark.
pub fn read_bytes(name: &str, bytes: &[u8], resolver: &dyn Resolver) -> Result<Read, Diagnostics> {
    match input::decode(bytes) {
        (text, None) => read(name, &text, resolver),
        (text, Some(error)) => Err(Diagnostics::new(name, &text, vec![error])),
    }
}

impl Reader<'_> {
    fn policy(&mut self, root: &tree::Table) -> Option<Policy> {
        let known = ["provider", "sublayer", "filter", "provider_context", "callout", "$schema"];
        self.check_keys(root, "a policy", &known);
        let objects = self.objects(root);
        let filters = self.filters(root, &objects);
        if self.errors() > 0 {
            return None;
        }
        let mut builder = Policy::builder();
        builder = reader::with(builder, objects.provider, PolicyBuilder::provider);
        builder = objects.sublayers.into_iter().fold(builder, PolicyBuilder::sublayer);
        builder = objects.provider_contexts.into_iter().fold(builder, PolicyBuilder::provider_context);
        builder = objects.callouts.into_iter().fold(builder, PolicyBuilder::callout);
        builder = filters.into_iter().fold(builder, PolicyBuilder::filter);
        builder = std::mem::take(&mut self.elsewhere).into_iter().fold(builder, PolicyBuilder::elsewhere);
        match builder.build() {
            Ok(policy) => Some(policy),
            Err(errors) => {
                let places = Places::of(root);
                for error in errors {
                    self.report(reader::from_model(places.of_error(&error), "here", &error));
                }
                None
            }
        }
    }
}

/// Where the objects of a file have their names.
struct Places<'t> {
    of_name: HashMap<(&'static str, &'t str), Span>,
}

impl<'t> Places<'t> {
    fn of(root: &'t tree::Table) -> Places<'t> {
        let mut of_name = HashMap::new();
        for list in ["sublayer", "callout", "provider_context", "filter"] {
            let Some(Tree::List(objects)) = root.get(list).map(|node| &node.value) else { continue };
            for (name, span) in objects.iter().filter_map(|object| object.name()) {
                of_name.entry((list, name)).or_insert(span);
            }
        }
        Places { of_name }
    }

    /// The name of the first object that the error is about.
    fn of_error(&self, error: &PolicyError) -> Span {
        let (kind, name) = match error {
            PolicyError::DuplicateKey { kind, second, .. } => (*kind, second.as_str()),
            PolicyError::NotFound { kind, name, .. } | PolicyError::Lifetime { kind, name, .. } => {
                (*kind, name.as_str())
            }
            PolicyError::CalloutLayer { filter, .. } => (ObjectKind::Filter, filter.as_str()),
            _ => return Span::default(),
        };
        let list = match kind {
            ObjectKind::Sublayer => "sublayer",
            ObjectKind::Callout => "callout",
            ObjectKind::ProviderContext => "provider_context",
            ObjectKind::Filter => "filter",
            ObjectKind::Provider => return Span::default(),
        };
        self.of_name.get(&(list, name)).copied().unwrap_or_default()
    }
}
