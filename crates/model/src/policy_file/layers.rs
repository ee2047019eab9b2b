//! The layers of a filter.

use crate::{Layer, LayerId};

use super::diagnostic::{Diagnostic, Span};
use super::reader::Reader;
use super::tree::{Node, Tree};

impl Reader<'_> {
    /// The layers that `layer` names, in the order in which it names them, without those that do not read well.
    pub fn layers(&mut self, node: &Node) -> Vec<LayerId> {
        let elements = self.one_or_many(node);
        if elements.is_empty() {
            self.report(Diagnostic::error(node.span, "a filter without a layer", "the list is empty"));
        }
        let mut layers: Vec<(LayerId, Span)> = Vec::new();
        for element in elements {
            for layer in self.family(element).unwrap_or_default() {
                match layers.iter().find(|(earlier, _)| *earlier == layer) {
                    Some((_, first)) => {
                        let error = Diagnostic::error(element.span, format!("duplicate layer `{layer}`"), "once more");
                        self.report(error.context(*first, "first given here"));
                    }
                    None => layers.push((layer, element.span)),
                }
            }
        }
        layers.into_iter().map(|(layer, _)| layer).collect()
    }

    fn family(&mut self, node: &Node) -> Option<Vec<LayerId>> {
        let Tree::Text(name) = &node.value else {
            return self.wrong_kind(node, "`layer`", "the name of a layer, or a list of them");
        };
        let family = Layer::family(name);
        if family.is_empty() {
            return self.fail(unknown_layer(name, node.span));
        }
        Some(family)
    }

    /// The one layer that a name stands for.
    pub fn one_layer(&mut self, node: &Node) -> Option<LayerId> {
        let name = self.text(node, "`layer`")?;
        match Layer::family(name).as_slice() {
            [layer] => Some(*layer),
            [] => self.fail(unknown_layer(name, node.span)),
            [first, ..] => {
                let error = Diagnostic::error(node.span, "more than one layer", "this is a family of layers");
                self.fail(error.help(format!("name one of them, such as `{first}`")))
            }
        }
    }
}

fn unknown_layer(name: &str, span: Span) -> Diagnostic {
    let error = Diagnostic::error(span, format!("unknown layer `{name}`"), "there is no such layer");
    match Layer::nearest(name) {
        Some(nearest) => error.did_you_mean(Some(nearest)),
        None => error.help("`wfp show layers` lists them"),
    }
}

/// The names of layers for messages: that of the family where both of its layers are there, and none of a `_DISCARD`
/// layer beside the layer that it belongs to.
pub(super) fn families(layers: &[LayerId]) -> String {
    let mut names: Vec<String> = Vec::new();
    for layer in layers {
        let name = layer.name();
        let family = name.replacen("_V4", "", 1).replacen("_V6", "", 1);
        let whole = family != name && Layer::family(&family).iter().all(|other| layers.contains(other));
        let name = if whole { family } else { name.to_owned() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let all = names.clone();
    names.retain(|name| name.strip_suffix("_DISCARD").is_none_or(|shown| !all.iter().any(|other| other == shown)));
    names.join(", ")
}
