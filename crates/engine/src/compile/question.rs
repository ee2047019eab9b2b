//! Questions to the classifier about a part of a filter, by images that hold this part alone.

use super::{
    CompiledFilter, emit, forest,
    rule::{Group, Rules},
};
use crate::{
    Cell, Silent, Values,
    cell::{filter_action, kind},
    classify,
};
use openwfp_model::FieldId;
use std::{vec, vec::Vec};

/// Whether conditions on one field, alone, hold. `None`: they never do.
pub(super) struct Question(Option<Vec<Cell>>);

impl Question {
    /// Asks for one of these alternatives.
    pub(super) fn new(group: &Group) -> Self {
        Self(if group.is_empty() { None } else { image(group.clone()) })
    }

    /// The answer for these values.
    pub(super) fn holds(&self, values: &Values) -> bool {
        self.0.as_ref().is_some_and(|cells| classify(&cells[..], 0, values, &mut Silent).filter == 1)
    }
}

/// An image of layer 0 alone, with one filter.
fn image(group: Group) -> Option<Vec<Cell>> {
    let mut rules = Rules::default();
    rules.push(1, vec![group]);
    let mut cells = vec![Cell::new(kind::NOTHING, 0, 0, 0); 2];
    let filters = cells.len() as u32 - 1;
    cells.push(Cell::filter(filter_action::PERMIT, 0, 0, 1, 0));
    let trees = forest::build(&rules);
    let (roots, worst) = emit::emit(&mut cells, &rules, &trees).ok()?;
    cells[1] = Cell::layer(trees.len() as u32, 1, roots, filters, worst);
    Some(cells)
}

/// A filter, and what can be asked about it.
pub(super) struct QuestionedFilter<'p> {
    /// Its place in the layer, markers counted too, from 1.
    pub(super) place: u32,
    pub(super) filter: &'p CompiledFilter,
    /// Whether each of its conditions holds.
    pub(super) conditions: Vec<Question>,
    /// Whether all conditions on each field hold.
    pub(super) fields: Vec<QuestionedField>,
}

/// The conditions of a filter on one field.
pub(super) struct QuestionedField {
    pub(super) field: FieldId,
    pub(super) group: Group,
    pub(super) question: Question,
}

impl From<(FieldId, Group)> for QuestionedField {
    fn from((field, group): (FieldId, Group)) -> Self {
        Self { field, question: Question::new(&group), group }
    }
}
