//! Filters.

use std::collections::HashMap;

use crate::{
    Action, CalloutKind, Errno, FieldId, Filter, FilterBuilder, FilterError, FilterFlags, Guid, LayerId, Weight, names,
};

use super::diagnostic::{Diagnostic, Span};
use super::objects::Objects;
use super::reader::{Reader, from_model, list, parse_number, with};
use super::tree::{Key, Node, Table, Tree};

const KEYS: [&str; 11] =
    ["name", "description", "key", "layer", "sublayer", "weight", "action", "flags", "context", "errno", "when"];
const ACTIONS: [&str; 3] = ["permit", "block", "continue"];
const KINDS: [(&str, CalloutKind); 3] = [
    ("terminating", CalloutKind::Terminating),
    ("inspection", CalloutKind::Inspection),
    ("unknown", CalloutKind::Unknown),
];

/// Makes the keys of filters that have none of their own.
#[derive(Default)]
pub(super) struct FilterKeys {
    counts: HashMap<(LayerId, String), u32>,
}

impl FilterKeys {
    /// The key of the next filter of that name at that layer. None where it is the one that [`Filter::builder`] makes
    /// from provider, layer and name; those after the first are told apart by their number.
    pub fn next(&mut self, provider: Option<Guid>, layer: LayerId, name: &str) -> Option<Guid> {
        let count = self.counts.entry((layer, name.to_owned())).or_default();
        *count += 1;
        let provider = provider.unwrap_or(Guid::ZERO);
        // No name holds a line feed.
        (*count > 1).then(|| Guid::named(&format!("filter of {provider}"), &format!("{count}\n{name} at {layer}")))
    }
}

impl Reader<'_> {
    /// The filters of the file.
    pub fn filters(&mut self, root: &Table, objects: &Objects) -> Vec<Filter> {
        let mut keys = FilterKeys::default();
        let mut own: HashMap<Guid, Span> = HashMap::new();
        let mut all = Vec::new();
        for (node, table) in self.tables(root, "filter") {
            let filters = self.filter(node, table, objects, &mut keys).unwrap_or_default();
            for filter in &filters {
                let span = table.get("key").map_or(node.span, |node| node.span);
                if let Some(first) = own.insert(filter.key, span) {
                    let error =
                        Diagnostic::error(span, format!("duplicate key {}", filter.key), "another filter has this key");
                    self.report(error.context(first, "first given here"));
                }
            }
            all.extend(filters);
        }
        all
    }

    /// One filter for each of its layers.
    fn filter(&mut self, node: &Node, table: &Table, objects: &Objects, keys: &mut FilterKeys) -> Option<Vec<Filter>> {
        let before = self.errors();
        self.check_filter_keys(table);
        let name = self.name(table, node.span, "a filter");
        let layers = match self.required(table, node.span, "a filter", "layer") {
            Some(node) => self.layers(node),
            None => Vec::new(),
        };
        let action = self.required(table, node.span, "a filter", "action").and_then(|node| self.action(node, objects));
        let sublayer = table.get("sublayer").and_then(|node| self.find_sublayer(objects, node));
        let context = table.get("context").and_then(|node| self.find_provider_context(objects, node));
        let weight = table.get("weight").map_or(Some(Weight::Automatic), |node| self.weight(node));
        let errno = table.get("errno").and_then(|node| self.errno(node));
        let flags = FilterFlags::from_bits_retain(self.object_flags::<FilterFlags>(table, "FWPM_FILTER_FLAG_"));
        let description = self.optional_text(table, "description");
        let key = self.key(table);
        let at_layers = match table.get("when") {
            Some(when) => self.conditions(when, &layers),
            None => Some(layers.iter().map(|layer| (*layer, Vec::new())).collect()),
        };
        if let (Some((_, span)), [_, _, ..]) = (key, layers.as_slice()) {
            let label = format!("this filter is one filter at each of {} layers", layers.len());
            self.report(Diagnostic::error(span, "one key for several filters", label));
        }
        let (name, name_span) = name?;
        let flags_span = table.get("flags").map_or(name_span, |node| node.span);
        let mut filters = Vec::new();
        for (layer, conditions) in at_layers? {
            // Filters with a key of their own count too: the writer counts them as well.
            let key = key.map(|(key, _)| key).or(keys.next(objects.provider_key(), layer, name));
            let (Some(action), Some(weight)) = (action, weight) else { continue };
            let mut builder = Filter::builder(name, layer).description(&description).weight(weight);
            builder = builder.flags(flags - FilterFlags::DISABLED);
            if flags.contains(FilterFlags::DISABLED) {
                builder = builder.disabled();
            }
            builder = builder.conditions(conditions).action(action);
            builder = with(builder, key, FilterBuilder::key);
            builder = with(builder, objects.provider_key(), FilterBuilder::provider);
            builder = with(builder, sublayer, FilterBuilder::sublayer);
            builder = with(builder, context, FilterBuilder::provider_context);
            builder = with(builder, errno, FilterBuilder::errno);
            for problem in builder.problems() {
                let span = if matches!(problem, FilterError::Object(_)) { name_span } else { flags_span };
                self.report(from_model(span, "here", &problem));
            }
            filters.extend(builder.build());
        }
        (self.errors() == before).then_some(filters)
    }

    fn check_filter_keys(&mut self, table: &Table) {
        let names = table.entries.iter().map(|(key, _)| key);
        let fields: Vec<&Key> = names.filter(|key| is_misplaced_field(&key.name)).collect();
        let known: Vec<&str> = KEYS.into_iter().chain(fields.iter().map(|key| key.name.as_str())).collect();
        self.check_keys(table, "a filter", &known);
        for key in fields {
            let title = format!("unknown key `{}`", key.name);
            let error = Diagnostic::error(key.span, title, "this is a field");
            self.report(error.help("conditions stand in the table `when` of the filter"));
        }
    }

    fn weight(&mut self, node: &Node) -> Option<Weight> {
        let Tree::Table(table) = &node.value else {
            let expected = "an integer from 0 to 15, or `{ exact = N }`";
            return match &node.value {
                Tree::Integer(number @ 0..=15) => Some(Weight::Range(*number as u8)),
                Tree::Integer(_) => {
                    let error = Diagnostic::error(
                        node.span,
                        "the weight of a filter is out of range",
                        format!("expected {expected}"),
                    );
                    self.fail(error)
                }
                Tree::Text(text) if parse_number(text).is_some() => {
                    self.integer(node, "the weight of a filter", 15).map(|number| Weight::Range(number as u8))
                }
                _ => self.wrong_kind(node, "the weight of a filter", expected),
            };
        };
        self.check_keys(table, "a weight", &["exact"]);
        let exact = self.required(table, node.span, "a weight", "exact")?;
        self.integer(exact, "`exact`", u64::MAX).map(Weight::Exact)
    }

    fn action(&mut self, node: &Node, objects: &Objects) -> Option<Action> {
        match &node.value {
            Tree::Text(name) => match name.to_ascii_lowercase().as_str() {
                "permit" => Some(Action::Permit),
                "block" => Some(Action::Block),
                "continue" => Some(Action::Continue),
                _ => {
                    let error =
                        Diagnostic::error(node.span, format!("unknown action `{name}`"), "there is no such action");
                    let nearest = names::nearest(name, ACTIONS);
                    self.fail(match nearest {
                        Some(_) => error.did_you_mean(nearest),
                        None => {
                            error.help(format!("the actions are {}, and `{{ callout = \"NAME\" }}`", list(&ACTIONS)))
                        }
                    })
                }
            },
            Tree::Table(table) => {
                self.check_keys(table, "an action", &["callout", "kind"]);
                let kind = table.get("kind").map_or(Some(CalloutKind::Unknown), |node| self.callout_kind(node));
                let callout = self.required(table, node.span, "an action", "callout")?;
                let callout = self.find_callout(objects, callout)?;
                Some(Action::Callout { callout, kind: kind? })
            }
            _ => self.wrong_kind(node, "`action`", "`permit`, `block`, `continue`, or `{ callout = \"NAME\" }`"),
        }
    }

    fn callout_kind(&mut self, node: &Node) -> Option<CalloutKind> {
        let text = self.text(node, "`kind`")?;
        match KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            Some((_, kind)) => Some(*kind),
            None => {
                let all = KINDS.map(|(name, _)| name);
                let error =
                    Diagnostic::error(node.span, format!("unknown kind `{text}`"), "a callout has no such kind");
                self.fail(error.help(format!("the kinds are {}", list(&all))))
            }
        }
    }

    fn errno(&mut self, node: &Node) -> Option<Errno> {
        let expected = "the name or number of an error, such as `EACCES`";
        match &node.value {
            Tree::Text(name) => match Errno::find(name) {
                Some(errno) => Some(errno),
                None => {
                    let error =
                        Diagnostic::error(node.span, format!("unknown error `{name}`"), format!("expected {expected}"));
                    self.fail(error.did_you_mean(Errno::nearest(name)))
                }
            },
            Tree::Integer(number) => match u16::try_from(*number).ok().and_then(Errno::new) {
                Some(errno) => Some(errno),
                None => {
                    let error =
                        Diagnostic::error(node.span, format!("unknown error {number}"), format!("expected {expected}"));
                    self.fail(error.help("errno(3) lists the errors of Linux; they end at 133"))
                }
            },
            _ => self.wrong_kind(node, "`errno`", expected),
        }
    }
}

/// Whether a wrong key of a filter is the name of a field. (`flags` is both.)
fn is_misplaced_field(key: &str) -> bool {
    !KEYS.contains(&key) && FieldId::find(key).is_some()
}

/// The name of a kind of callout.
pub(super) fn kind_name(kind: CalloutKind) -> &'static str {
    KINDS.iter().find(|(_, candidate)| *candidate == kind).map_or("unknown", |(name, _)| name)
}
