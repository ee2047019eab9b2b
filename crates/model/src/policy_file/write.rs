//! Policies as files: as a tree of JSON, which is then written in either syntax.

use std::collections::BTreeMap;

use bitflags::Flags;
use serde_json::{Map, Value, json};

use crate::object::ObjectKind;
use crate::{
    Action, Callout, CalloutServer, Data, Filter, FilterBuilder, FilterFlags, Guid, Policy, Provider, ProviderContext,
    Sublayer, Weight, builtin,
};

use super::filters::{FilterKeys, kind_name};
use super::reader::with;
use super::toml_text;
use super::write_conditions;

/// The policy as a TOML file, which [`read`](super::read) reads as an equal policy.
///
/// Equal up to what a file cannot say: the conditions on one field stand together, in the order in which the fields
/// first appear; bits of networks beyond their prefix are cleared; and every object belongs to the provider of the
/// policy.
pub fn write_toml(policy: &Policy) -> String {
    toml_text::document(&tree(policy))
}

/// The policy as a JSON file, as [`write_toml`] does in TOML.
pub fn write_json(policy: &Policy) -> String {
    let mut text = format!("{:#}", Value::Object(tree(policy)));
    text.push('\n');
    text
}

fn tree(policy: &Policy) -> Map<String, Value> {
    let mut root = Map::new();
    if let Some(provider) = &policy.provider {
        root.insert("provider".to_owned(), provider_tree(provider));
    }
    let mut keys = FilterKeys::default();
    let lists: [(&str, Vec<Value>); 4] = [
        ("sublayer", policy.sublayers.iter().map(sublayer).collect()),
        ("provider_context", policy.provider_contexts.iter().map(provider_context).collect()),
        ("callout", policy.callouts.iter().map(callout).collect()),
        ("filter", policy.filters.iter().map(|each| filter(policy, each, &mut keys)).collect()),
    ];
    root.extend(
        lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key.to_owned(), list.into())),
    );
    root
}

/// What objects of every kind have.
struct Head<'a> {
    kind: ObjectKind,
    name: &'a str,
    description: &'a str,
    provider: Option<Guid>,
    key: Guid,
    flags: Vec<&'static str>,
}

impl Head<'_> {
    fn tree(self) -> Map<String, Value> {
        let made = self.kind.key(None, self.provider, self.name).ok();
        let key = (made != Some(self.key)).then_some(self.key);
        object_head(self.name, self.description, key, self.flags)
    }
}

fn object_head(name: &str, description: &str, key: Option<Guid>, flags: Vec<&'static str>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("name".to_owned(), name.into());
    if !description.is_empty() {
        object.insert("description".to_owned(), description.into());
    }
    if let Some(key) = key {
        object.insert("key".to_owned(), key.to_string().into());
    }
    if !flags.is_empty() {
        object.insert("flags".to_owned(), flags.into());
    }
    object
}

fn flag_names<F: Flags>(flags: F) -> Vec<&'static str> {
    flags.iter_names().map(|(name, _)| name).collect()
}

fn provider_tree(provider: &Provider) -> Value {
    let mut object = Head {
        kind: ObjectKind::Provider,
        name: &provider.name,
        description: &provider.description,
        provider: None,
        key: provider.key,
        flags: flag_names(provider.flags),
    }
    .tree();
    if let Some(service) = &provider.service_name {
        object.insert("service".to_owned(), service.as_str().into());
    }
    match object.len() {
        1 => provider.name.as_str().into(),
        _ => object.into(),
    }
}

fn sublayer(sublayer: &Sublayer) -> Value {
    let mut object = Head {
        kind: ObjectKind::Sublayer,
        name: &sublayer.name,
        description: &sublayer.description,
        provider: sublayer.provider,
        key: sublayer.key,
        flags: flag_names(sublayer.flags),
    }
    .tree();
    object.insert("weight".to_owned(), sublayer.weight.into());
    object.into()
}

fn provider_context(context: &ProviderContext) -> Value {
    let mut object = Head {
        kind: ObjectKind::ProviderContext,
        name: &context.name,
        description: &context.description,
        provider: context.provider,
        key: context.key,
        flags: flag_names(context.flags),
    }
    .tree();
    object.insert("data".to_owned(), Value::from(&context.data));
    object.into()
}

fn callout(callout: &Callout) -> Value {
    let mut object = Head {
        kind: ObjectKind::Callout,
        name: &callout.name,
        description: &callout.description,
        provider: callout.provider,
        key: callout.key,
        flags: flag_names(callout.flags),
    }
    .tree();
    if let Some(layer) = callout.layer {
        object.insert("layer".to_owned(), layer.name().into());
    }
    match &callout.server {
        CalloutServer::Registered => {}
        CalloutServer::BuiltIn(name) => {
            object.insert("uses".to_owned(), name.as_str().into());
        }
        CalloutServer::Host { path, user } => {
            object.insert("host".to_owned(), path.as_str().into());
            object.extend(user.map(|user| ("user".to_owned(), user.into())));
        }
    }
    if !callout.settings.is_empty() {
        object.insert("settings".to_owned(), data_table(&callout.settings));
    }
    object.into()
}

fn data_table(table: &BTreeMap<String, Data>) -> Value {
    table.iter().map(|(key, value)| (key.clone(), Value::from(value))).collect()
}

fn filter(policy: &Policy, filter: &Filter, keys: &mut FilterKeys) -> Value {
    let numbered = keys.next(filter.provider, filter.layer, &filter.name);
    let made = numbered.or_else(|| made_key(filter));
    let flags = filter.flags.difference(FilterFlags::HAS_PROVIDER_CONTEXT);
    let key = (made != Some(filter.key)).then_some(filter.key);
    let mut object = object_head(&filter.name, &filter.description, key, flag_names(flags));
    object.insert("layer".to_owned(), filter.layer.name().into());
    if filter.sublayer != filter.layer.layer().default_sublayer {
        let own = policy.sublayers.iter().map(|sublayer| (sublayer.key, sublayer.name.as_str()));
        let built_in = builtin::sublayer(filter.sublayer).map(|sublayer| sublayer.name);
        object.insert("sublayer".to_owned(), reference(own, filter.sublayer, built_in).into());
    }
    match filter.weight {
        Weight::Automatic => {}
        Weight::Range(range) => {
            object.insert("weight".to_owned(), range.into());
        }
        Weight::Exact(exact) => {
            object.insert("weight".to_owned(), json!({"exact": exact}));
        }
    }
    object.insert("action".to_owned(), action(policy, filter.action));
    if let Some(context) = filter.provider_context {
        let own = policy.provider_contexts.iter().map(|context| (context.key, context.name.as_str()));
        let built_in = builtin::provider_context(context).map(|context| context.name);
        object.insert("context".to_owned(), reference(own, context, built_in).into());
    }
    if let Some(errno) = filter.errno {
        object.insert("errno".to_owned(), errno.name().into());
    }
    if !filter.conditions.is_empty() {
        object.insert("when".to_owned(), write_conditions::when(filter.layer.layer(), &filter.conditions).into());
    }
    object.into()
}

/// The key that the filter would have if it had none of its own and were the first of its name.
fn made_key(filter: &Filter) -> Option<Guid> {
    let builder = Filter::builder(&filter.name, filter.layer).action(Action::Permit);
    with(builder, filter.provider, FilterBuilder::provider).build().map(|filter| filter.key).ok()
}

fn action(policy: &Policy, action: Action) -> Value {
    match action {
        Action::Permit => "permit".into(),
        Action::Block => "block".into(),
        Action::Continue => "continue".into(),
        Action::Callout { callout, kind } => {
            let own = policy.callouts.iter().map(|callout| (callout.key, callout.name.as_str()));
            let built_in = builtin::callout(callout).map(|callout| callout.name);
            json!({"callout": reference(own, callout, built_in), "kind": kind_name(kind)})
        }
    }
}

/// The name of an object that a filter refers to, or its GUID where no name would lead to it.
fn reference<'a>(own: impl Iterator<Item = (Guid, &'a str)> + Clone, key: Guid, built_in: Option<&str>) -> String {
    let by_name = |name: &str| own.clone().find(|(_, candidate)| *candidate == name).map(|(key, _)| key);
    let own_name = own.clone().find(|(candidate, _)| *candidate == key).map(|(_, name)| name);
    match (own_name, built_in) {
        (Some(name), _) if by_name(name) == Some(key) => name.to_owned(),
        (None, Some(name)) if by_name(name).is_none() => name.to_owned(),
        _ => key.to_string(),
    }
}
