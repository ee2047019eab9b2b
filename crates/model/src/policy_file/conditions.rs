//! The conditions of a filter (`when`), for each of its layers.

use std::net::Ipv6Addr;

use crate::{
    ConditionError, FieldId, FieldType, FilterCondition, IpVersion, Layer, LayerField, LayerId, MatchType, Value,
};

use super::addresses;
use super::diagnostic::{Diagnostic, Span};
use super::layers;
use super::operand::{Kind, Subject};
use super::operators::{Test, notation};
use super::reader::{Reader, from_model};
use super::tree::{Key, Node};

/// A layer with the conditions that the filter has there.
pub(super) type AtLayer = (LayerId, Vec<FilterCondition>);

impl Reader<'_> {
    /// The layers that get a filter, with its conditions. Layers at which it could never match are left out: those
    /// whose version of IP an address field has no value for. Nothing where the conditions do not read well. Without
    /// layers, which is where those of the filter do not read well, the conditions are only checked.
    pub fn conditions(&mut self, when: &Node, layers: &[LayerId]) -> Option<Vec<AtLayer>> {
        let table = self.table(when, "`when`")?;
        let before = self.errors();
        let mut all: Vec<AtLayer> = layers.iter().map(|layer| (*layer, Vec::new())).collect();
        let mut without: Vec<(LayerId, &Key)> = Vec::new();
        let mut seen: Vec<(FieldId, Span)> = Vec::new();
        for (key, node) in &table.entries {
            let Some(field) = self.field(key, layers) else { continue };
            let mut instead = Vec::new();
            let all = if layers.is_empty() {
                instead.extend(some_layers(field));
                &mut instead
            } else {
                &mut all
            };
            if let Some((_, first)) = seen.iter().find(|(earlier, _)| *earlier == field) {
                let title = format!("duplicate field `{}`", key.name);
                let label = format!("this is `{field}` again");
                let error = Diagnostic::error(key.span, title, label).context(*first, "first given here");
                self.report(error.help("put the alternatives into one list"));
                continue;
            }
            seen.push((field, key.span));
            self.field_conditions(key, field, node, all, &mut without);
        }
        if self.errors() > before {
            return None;
        }
        all.retain(|(layer, _)| without.iter().all(|(empty, _)| empty != layer));
        if all.is_empty() && !layers.is_empty() {
            let mut error = Diagnostic::error(when.span, "a filter that can match nowhere", "no layer is left");
            for (layer, key) in without {
                error = error.context(key.span, format!("no address for {layer}"));
            }
            return self.fail(error);
        }
        Some(all)
    }

    fn field(&mut self, key: &Key, layers: &[LayerId]) -> Option<FieldId> {
        if let Some(field) = FieldId::find(&key.name) {
            return Some(field);
        }
        let at_layer = layers.iter().find_map(|layer| layer.layer().nearest_field(&key.name));
        let error = Diagnostic::error(key.span, format!("unknown field `{}`", key.name), "no layer has such a field");
        self.fail(error.did_you_mean(at_layer.or_else(|| FieldId::nearest(&key.name))))
    }

    /// Adds the conditions of one field to every layer.
    fn field_conditions<'t>(
        &mut self,
        key: &'t Key,
        field: FieldId,
        node: &Node,
        all: &mut [AtLayer],
        without: &mut Vec<(LayerId, &'t Key)>,
    ) {
        let missing: Vec<LayerId> =
            all.iter().map(|(layer, _)| *layer).filter(|layer| layer.layer().field(field).is_none()).collect();
        if !missing.is_empty() {
            self.report(field_is_elsewhere(key, field, &missing));
        }
        // A field has one type at nearly all of its layers, so that its values are read once; that of addresses differs
        // by version only.
        let mut read: Vec<(LayerField, Vec<Test>)> = Vec::new();
        let versions: Vec<IpVersion> =
            all.iter().filter_map(|(layer, _)| address_version(layer.layer().field(field)?)).collect();
        for (layer, conditions) in all.iter_mut() {
            let Some(layer_field) = layer.layer().field(field) else { continue };
            let same = |other: &LayerField| other == layer_field || is_address(other) && is_address(layer_field);
            let tests = match read.iter().find(|(other, _)| same(other)) {
                Some((_, tests)) => tests.clone(),
                None => {
                    let tests = self.field_tests(&Subject::new(*layer_field, &key.name), node, &versions);
                    read.push((*layer_field, tests.clone()));
                    tests
                }
            };
            let lowered = lower(layer_field, &tests);
            if lowered.is_empty() {
                without.push((*layer, key));
            }
            for (condition, span) in lowered {
                match condition.check(layer.layer()) {
                    Ok(()) => conditions.push(condition),
                    Err(error) => self.report(wrong_test(layer_field, &condition, &error, span)),
                }
            }
        }
    }

    /// The tests of a field: those of its value, or of every element of a list.
    fn field_tests(&mut self, subject: &Subject, node: &Node, versions: &[IpVersion]) -> Vec<Test> {
        let elements = self.one_or_many(node);
        if elements.is_empty() {
            self.report(Diagnostic::error(node.span, "an empty list", "no value would ever match"));
        }
        if subject.kind == Kind::Flags && elements.len() > 1 && elements.iter().all(Node::is_text) {
            let error = Diagnostic::error(node.span, "flags without a test", "do they have to be set or clear?");
            self.report(error.help("write `{ all = […] }`, `{ any = […] }` or `{ none = […] }`"));
            return Vec::new();
        }
        let mut tests = Vec::new();
        for element in elements {
            let element_tests = self.tests(subject, element, false);
            if let Some(version) = element_tests.iter().find_map(|test| test.version)
                && !versions.contains(&version)
            {
                self.report(wrong_version(element.span, version));
                continue;
            }
            self.warn_of_mapped(&element_tests);
            tests.extend(element_tests);
        }
        self.warn_of_alternatives(subject, &tests);
        tests
    }

    /// An IPv4-mapped IPv6 address, which is seen at no layer.
    fn warn_of_mapped(&mut self, tests: &[Test]) {
        for test in tests {
            if let Value::ByteArray16(octets) = test.value
                && test.version == Some(IpVersion::V6)
                && let Some(address) = Ipv6Addr::from(octets).to_ipv4_mapped()
            {
                let title = "an IPv4 address in the form of IPv6";
                let warning = Diagnostic::warning(test.span, title, "no traffic has this address");
                self.report(
                    warning.note("such traffic is IPv4, and is seen at IPv4 layers").help(format!("write `{address}`")),
                );
            }
        }
    }

    /// Two alternatives that are each the opposite of one value.
    fn warn_of_alternatives(&mut self, subject: &Subject, tests: &[Test]) {
        let is_negation = |test: &&Test| matches!(test.match_type, MatchType::NotEqual | MatchType::NotPrefix);
        let mut negations = tests.iter().filter(is_negation);
        let Some(first) = negations.next() else { return };
        if let Some(second) = negations.find(|test| test.version == first.version && test.value != first.value) {
            let title = format!("the tests of `{}` hold for nearly everything", subject.field.field);
            let warning = Diagnostic::warning(second.span, title, "or not this")
                .context(first.span, "not this")
                .note("conditions on one field are alternatives: nearly every value is not the one or not the other");
            self.report(warning);
        }
    }
}

/// The conditions that the tests of a field are at one layer, with their places.
fn lower(field: &LayerField, tests: &[Test]) -> Vec<(FilterCondition, Span)> {
    let condition = |test: &Test| (FilterCondition::new(field.field, test.match_type, test.value.clone()), test.span);
    let Some(version) = address_version(field) else {
        return tests.iter().map(condition).collect();
    };
    let fits = |test: &&Test| test.version.is_none_or(|other| other == version);
    // "Not 127.0.0.0/8" holds for every IPv6 address, and so does any list with it.
    match tests.iter().find(|test| test.negated && !fits(test)) {
        Some(test) => {
            let everything = FilterCondition::equal(field.field, addresses::everything(version));
            let of_any_version = tests.iter().filter(|test| test.version.is_none()).map(condition);
            std::iter::once((everything, test.span)).chain(of_any_version).collect()
        }
        None => tests.iter().filter(fits).map(condition).collect(),
    }
}

fn is_address(field: &LayerField) -> bool {
    field.field_type == FieldType::IpAddress
}

/// The version of IP of an address field.
fn address_version(field: &LayerField) -> Option<IpVersion> {
    is_address(field).then_some(match field.data_type {
        crate::DataType::Uint32 => IpVersion::V4,
        _ => IpVersion::V6,
    })
}

fn wrong_version(span: Span, version: IpVersion) -> Diagnostic {
    let (name, other) = match version {
        IpVersion::V4 => ("IPv4", "IPv6"),
        IpVersion::V6 => ("IPv6", "IPv4"),
    };
    let label = format!("the filter's layers see {other} traffic only");
    let error = Diagnostic::error(span, format!("an {name} address at {other} layers"), label);
    error.help("the name of a layer without its version stands for both: addresses of either go to their layer")
}

fn field_is_elsewhere(key: &Key, field: FieldId, missing: &[LayerId]) -> Diagnostic {
    let have: Vec<LayerId> =
        Layer::all().iter().filter(|layer| layer.field(field).is_some()).map(|layer| layer.id).collect();
    let title = format!("`{field}` is not a field of {}", layers::families(missing));
    // The model knows what a layer has instead.
    let condition = FilterCondition::equal(field, Value::Empty);
    let instead = missing.iter().find_map(|layer| condition.check(layer.layer()).err()).map(|error| error.to_string());
    let error = Diagnostic::error(key.span, title, "no such field there");
    let error = match have.is_empty() {
        true => error.note("no layer has this field"),
        false => error.note(format!("these layers have it: {}", layers::families(&have))),
    };
    match instead.as_deref().and_then(|text| text.rsplit_once(": ")) {
        Some((_, advice)) => error.help(advice),
        None => error,
    }
}

/// A layer that has the field, or the layers of both versions for one of addresses.
fn some_layers(field: FieldId) -> Vec<AtLayer> {
    let mut some: Vec<(LayerId, &LayerField)> = Vec::new();
    for (layer, layer_field) in Layer::all().iter().filter_map(|layer| Some((layer.id, layer.field(field)?))) {
        let new = some.iter().all(|(_, other)| *other != layer_field);
        if new && (some.is_empty() || is_address(layer_field)) {
            some.push((layer, layer_field));
        }
    }
    some.into_iter().map(|(layer, _)| (layer, Vec::new())).collect()
}

fn wrong_test(field: &LayerField, condition: &FilterCondition, error: &ConditionError, span: Span) -> Diagnostic {
    if !matches!(error, ConditionError::MatchType { .. }) {
        return from_model(span, "here", error);
    }
    let title = format!("{} cannot test `{}`", notation(condition.match_type), field.field);
    let allowed = MatchType::ALL.into_iter().filter(|match_type| match_type.allowed_for(field));
    let allowed: Vec<&str> = allowed.map(notation).collect();
    let error = Diagnostic::error(span, title, format!("the field holds {}", field.data_type));
    error.help(format!("it is tested by {}", allowed.join(", ")))
}
