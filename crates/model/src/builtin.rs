//! Objects that always exist: the platform's own sublayers, providers, provider contexts and callouts.
//!
//! They cannot be added or deleted. Filters may stand in the sublayers; the callouts are names that Windows gives to
//! parts of itself, and nobody answers for them here.

use crate::generated::callouts::{CALLOUT_ALIASES, CALLOUTS};
use crate::generated::provider_contexts::PROVIDER_CONTEXTS;
use crate::generated::providers::PROVIDERS;
use crate::generated::sublayers::{SUBLAYER_ALIASES, SUBLAYERS};
use crate::{Guid, names};

pub use crate::generated::sublayers::sublayer_keys;

/// A sublayer that always exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltInSublayer {
    /// The public key.
    pub key: Guid,
    /// The public name without `FWPM_SUBLAYER_`.
    pub name: &'static str,
    /// The name for people.
    pub display_name: &'static str,
    /// The weight; no two of them have the same.
    pub weight: u16,
}

/// A provider, provider context or callout that has a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltInObject {
    /// The public key.
    pub key: Guid,
    /// The public name without its prefix.
    pub name: &'static str,
}

/// The built-in sublayers, from the lowest weight to the highest.
pub fn sublayers() -> &'static [BuiltInSublayer] {
    &SUBLAYERS
}

/// The built-in providers.
pub fn providers() -> &'static [BuiltInObject] {
    &PROVIDERS
}

/// The built-in provider contexts.
pub fn provider_contexts() -> &'static [BuiltInObject] {
    &PROVIDER_CONTEXTS
}

/// The built-in callouts.
pub fn callouts() -> &'static [BuiltInObject] {
    &CALLOUTS
}

/// The built-in sublayer of that key.
pub fn sublayer(key: Guid) -> Option<&'static BuiltInSublayer> {
    SUBLAYERS.iter().find(|sublayer| sublayer.key == key)
}

/// The built-in provider of that key.
pub fn provider(key: Guid) -> Option<&'static BuiltInObject> {
    PROVIDERS.iter().find(|provider| provider.key == key)
}

/// The built-in provider context of that key.
pub fn provider_context(key: Guid) -> Option<&'static BuiltInObject> {
    PROVIDER_CONTEXTS.iter().find(|context| context.key == key)
}

/// The built-in callout of that key.
pub fn callout(key: Guid) -> Option<&'static BuiltInObject> {
    CALLOUTS.iter().find(|callout| callout.key == key)
}

/// The built-in sublayer of that name (or alias, or GUID), in any case, with or without `FWPM_SUBLAYER_`.
pub fn find_sublayer(name: &str) -> Option<&'static BuiltInSublayer> {
    let short = real_name(names::without_prefix(name, "FWPM_SUBLAYER_"), &SUBLAYER_ALIASES);
    let by_name = SUBLAYERS.iter().find(|sublayer| sublayer.name.eq_ignore_ascii_case(short));
    by_name.or_else(|| sublayer(name.parse().ok()?))
}

/// The built-in provider of that name (or GUID), in any case, with or without `FWPM_PROVIDER_`.
pub fn find_provider(name: &str) -> Option<&'static BuiltInObject> {
    find(&PROVIDERS, names::without_prefix(name, "FWPM_PROVIDER_")).or_else(|| provider(name.parse().ok()?))
}

/// The built-in provider context of that name (or GUID), in any case, with or without `FWPM_PROVIDER_CONTEXT_`.
pub fn find_provider_context(name: &str) -> Option<&'static BuiltInObject> {
    find(&PROVIDER_CONTEXTS, names::without_prefix(name, "FWPM_PROVIDER_CONTEXT_"))
        .or_else(|| provider_context(name.parse().ok()?))
}

/// The built-in callout of that name (or alias, or GUID), in any case, with or without `FWPM_CALLOUT_`.
pub fn find_callout(name: &str) -> Option<&'static BuiltInObject> {
    let short = real_name(names::without_prefix(name, "FWPM_CALLOUT_"), &CALLOUT_ALIASES);
    find(&CALLOUTS, short).or_else(|| callout(name.parse().ok()?))
}

fn find(objects: &'static [BuiltInObject], name: &str) -> Option<&'static BuiltInObject> {
    objects.iter().find(|object| object.name.eq_ignore_ascii_case(name))
}

fn real_name<'a>(name: &'a str, aliases: &[(&str, &'a str)]) -> &'a str {
    aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map_or(name, |(_, real)| real)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MS docs: Management filtering sublayer identifiers; weights as a real machine shows them.
    #[test]
    fn sublayers_by_name_alias_and_key() {
        for (name, weight) in [
            ("FWPM_SUBLAYER_UNIVERSAL", 0x8000),
            ("universal", 0x8000),
            ("{eebecc03-ced4-4380-819a-2734397b2b74}", 0x8000),
            ("INSPECTION", 0),
            ("MPSSVC_WF", 2),
            ("EDGE_TRAVERSAL", 1),
            ("fwpm_sublayer_rpc_audit", 0xc000),
        ] {
            assert_eq!(find_sublayer(name).map(|sublayer| sublayer.weight), Some(weight), "{name}");
        }
        assert_eq!(find_sublayer("nothing"), None);
        assert!(sublayers().windows(2).all(|pair| pair[0].weight < pair[1].weight));
    }

    #[test]
    fn other_objects_by_name_and_key() {
        let object = |found: Option<&BuiltInObject>| found.map(|object| object.name);
        for name in ["MPSSVC_WF", "fwpm_provider_mpssvc_wf", "{decc16ca-3f33-4346-be1e-8fb4ae0f3d62}"] {
            assert_eq!(object(find_provider(name)), Some("MPSSVC_WF"));
        }
        for name in ["SECURE_SOCKET_IPSEC", "{8c2d4144-f8e0-42c0-94ce-7ccfc63b2f9b}"] {
            assert_eq!(object(find_provider_context(name)), Some("SECURE_SOCKET_IPSEC"));
        }
        for name in ["EDGE_TRAVERSAL_ALE_LISTEN_V6", "TEREDO_ALE_LISTEN_V6", "{81a434e7-f60c-4378-bab8-c625a30f0197}"] {
            assert_eq!(object(find_callout(name)), Some("TEREDO_ALE_LISTEN_V6"));
        }
    }
}
