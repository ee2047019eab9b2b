//! The compiler: from filters to a policy image.
//!
//! 1. Sublayers are put in order, and the filters of each in order of their effective weights.
//! 2. Conditions become tests on words ([`Schema`] says which), a filter becomes a rule; values that are compared for
//!    more than their number become class numbers ([`Classes`]).
//! 3. Trees are built over the rules of each layer and written down as cells.
//!
//! A filter that tests a value which may be unknown (see [`unknown`]) brings a *marker*: a rule just before it that
//! matches when the filter would but for that value. So a verdict says "late" or "unreadable" exactly where the value
//! could matter. Where very many filters of a sublayer test the same such field, one marker stands for all of them,
//! before the first, so that the walk stays short.

mod candidates;
mod change;
mod classes;
mod emit;
mod error;
mod event;
mod explain;
mod findings;
mod forest;
mod image;
mod lower;
mod next;
mod question;
mod rule;
mod schema;
mod users;

pub use change::Change;
pub use classes::{Classes, group_above};
pub use error::CompileError;
pub use event::{Event, EventValue, decode};
pub use explain::{
    ConditionExplanation, Effect, Explainer, Explanation, FilterExplanation, SublayerAnswer, SublayerExplanation,
};
pub use findings::Finding;
pub use image::{ImageError, PolicyImage};
pub use next::{compile_after, compile_after_with, compile_objects_after};
pub use schema::{Encoding, FieldWords, Schema, Unknown, unknown};
pub use users::Groups;

use crate::{
    Test,
    cell::{Cell, FIRST_FREE, MAX_FILTERS, MAX_SUBLAYERS, RANK_SUBLAYER_SHIFT, filter_action, filter_flags, kind},
    classify::MAX_STEPS,
};
use openwfp_model::{
    Action, CalloutKind, FieldId, Filter, FilterCondition, FilterFlags, Guid, Layer, LayerId, Policy, Sublayer,
};
use rule::{Group, Rules, WordTest};
use std::{collections::HashMap, string::String, vec, vec::Vec};

/// What stands at one place of a layer's list of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The filter's id.
    pub filter: u64,
    /// The marker that stands there instead of the filter itself.
    pub marker: Option<Unknown>,
}

/// One layer of a compiled policy.
#[derive(Clone, Debug, Default)]
pub struct CompiledLayer {
    /// The keys of the sublayers that have filters here, in the order in which they are walked.
    pub sublayers: Vec<Guid>,
    /// Filters and markers in rank order; place 1 is the first.
    pub places: Vec<Place>,
    /// The most steps that a classification can take.
    pub worst_steps: u32,
    /// The cells that the layer takes.
    pub cells: usize,
}

/// A sublayer in the order of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedSublayer {
    /// The key.
    pub key: Guid,
    /// The name; for a built-in sublayer the public one without `FWPM_SUBLAYER_`.
    pub name: String,
    /// The weight.
    pub weight: u16,
}

/// A filter with the id that it has in the image and in events.
#[derive(Clone, Debug)]
pub struct CompiledFilter {
    /// The id.
    pub id: u64,
    /// The filter.
    pub filter: Filter,
    /// Its effective weight.
    pub effective_weight: u64,
}

impl CompiledFilter {
    /// Whether it is disabled: it has an id, and no part in the image.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.filter.flags.contains(FilterFlags::DISABLED)
    }
}

/// Policies, compiled: the image, and what is needed to speak to it and about it.
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    image: PolicyImage,
    layers: Vec<CompiledLayer>,
    filters: Vec<CompiledFilter>,
    by_id: HashMap<u64, usize>,
    sublayers: Vec<OrderedSublayer>,
    classes: Classes,
    groups: Groups,
    registered: Vec<Guid>,
    /// The highest id that a filter of this policy or of one before it has had.
    last_id: u64,
}

/// How many filters of a sublayer may test the same field before one marker stands for all of them.
const FINE_MARKERS: usize = 64;

/// Compiles policies that live side by side, as those of independent providers do.
///
/// Filters get ids from 1, in the order in which they stand.
pub fn compile(policies: &[&Policy]) -> Result<CompiledPolicy, CompileError> {
    compile_with(policies, &[])
}

/// The same, with the keys of the callouts that are registered, whose index is their number in the image.
pub fn compile_with(policies: &[&Policy], registered: &[Guid]) -> Result<CompiledPolicy, CompileError> {
    let sublayers: Vec<Sublayer> = policies.iter().flat_map(|policy| &policy.sublayers).cloned().collect();
    let filters = policies.iter().flat_map(|policy| &policy.filters).cloned();
    compile_objects(1, &sublayers, (1..).zip(filters).collect(), registered)
}

/// Compiles objects: sublayers beside the built-in ones, in the order in which they were added, filters with ids, and the
/// keys of the callouts that are registered, whose index is their number in the image.
pub fn compile_objects(
    generation: u32,
    sublayers: &[Sublayer],
    filters: Vec<(u64, Filter)>,
    registered: &[Guid],
) -> Result<CompiledPolicy, CompileError> {
    build(generation, sublayers, filters, registered, Given::default())
}

/// What was given to values and filters before.
#[derive(Default)]
struct Given {
    classes: Classes,
    groups: Groups,
    last_id: u64,
}

fn build(
    generation: u32,
    sublayers: &[Sublayer],
    filters: Vec<(u64, Filter)>,
    registered: &[Guid],
    given: Given,
) -> Result<CompiledPolicy, CompileError> {
    let builtin = openwfp_model::builtin::sublayers().iter().map(|sublayer| OrderedSublayer {
        key: sublayer.key,
        name: sublayer.name.into(),
        weight: sublayer.weight,
    });
    let own = sublayers.iter().map(|sublayer| OrderedSublayer {
        key: sublayer.key,
        name: sublayer.name.clone(),
        weight: sublayer.weight,
    });
    let mut all: Vec<OrderedSublayer> = builtin.chain(own).collect();
    // a stable sort: of equal weights, the one that was added first comes first
    all.sort_by_key(|sublayer| core::cmp::Reverse(sublayer.weight));
    let filters: Vec<CompiledFilter> = filters
        .into_iter()
        .map(|(id, filter)| CompiledFilter { id, effective_weight: filter.effective_weight(), filter })
        .collect();
    let mut compiled = CompiledPolicy {
        image: PolicyImage::default(),
        layers: vec![CompiledLayer::default(); Layer::all().len()],
        by_id: filters.iter().enumerate().map(|(index, filter)| (filter.id, index)).collect(),
        last_id: filters.iter().map(|filter| filter.id).fold(given.last_id, u64::max),
        filters,
        sublayers: all,
        classes: given.classes,
        groups: given.groups,
        registered: registered.to_vec(),
    };
    compiled.note_values()?;
    let mut cells = vec![Cell::new(kind::NOTHING, 0, 0, 0); FIRST_FREE as usize];
    let mut of_layer: Vec<Vec<usize>> = vec![vec![]; Layer::all().len()];
    for (index, filter) in compiled.filters.iter().enumerate() {
        if !filter.is_disabled() {
            of_layer[filter.filter.layer.get() as usize].push(index);
        }
    }
    for layer in Layer::all() {
        let filters = core::mem::take(&mut of_layer[layer.id.get() as usize]);
        cells[1 + layer.id.get() as usize] = compiled.layer(layer.id, filters, &mut cells)?;
    }
    compiled.image = PolicyImage::seal(cells, generation);
    Ok(compiled)
}

impl CompiledPolicy {
    /// The image.
    #[must_use]
    pub fn image(&self) -> &PolicyImage {
        &self.image
    }

    /// One layer.
    #[must_use]
    pub fn layer_of(&self, layer: LayerId) -> &CompiledLayer {
        &self.layers[layer.get() as usize]
    }

    /// Every filter, also the disabled ones, in the order in which they were added.
    #[must_use]
    pub fn filters(&self) -> &[CompiledFilter] {
        &self.filters
    }

    /// The filter of this id.
    #[must_use]
    pub fn filter(&self, id: u64) -> Option<&CompiledFilter> {
        self.by_id.get(&id).map(|&index| &self.filters[index])
    }

    /// Every sublayer, the built-in ones too, in the order in which they are walked.
    #[must_use]
    pub fn sublayers(&self) -> &[OrderedSublayer] {
        &self.sublayers
    }

    /// The sublayer of this key.
    #[must_use]
    pub fn sublayer(&self, key: Guid) -> Option<&OrderedSublayer> {
        self.sublayers.iter().find(|sublayer| sublayer.key == key)
    }

    /// The class numbers of the image.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The groups that conditions name, and their bits.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Gives every class and every group its number.
    fn note_values(&mut self) -> Result<(), CompileError> {
        for filter in self.filters.iter().filter(|filter| !filter.is_disabled()) {
            let schema = Schema::of(filter.filter.layer);
            for condition in &filter.filter.conditions {
                match schema.field(condition.field).map(|words| words.encoding) {
                    Some(Encoding::Class) => {
                        self.classes.note(condition.field, condition.match_type, &condition.value)?;
                    }
                    Some(Encoding::User) => {
                        for gid in users::groups_of(&condition.value) {
                            if !self.groups.note(gid) {
                                return Err(CompileError::TooManyGroups { gid });
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Compiles one layer behind `cells`; its entry.
    fn layer(&mut self, layer: LayerId, mut filters: Vec<usize>, cells: &mut Vec<Cell>) -> Result<Cell, CompileError> {
        let before = cells.len();
        let order: HashMap<Guid, usize> =
            self.sublayers.iter().enumerate().map(|(place, sublayer)| (sublayer.key, place)).collect();
        for &index in &filters {
            let filter = &self.filters[index].filter;
            if !order.contains_key(&filter.sublayer) {
                return Err(CompileError::SublayerNotFound { filter: filter.name.clone(), sublayer: filter.sublayer });
            }
        }
        filters.sort_by_key(|&index| {
            let filter = &self.filters[index];
            (order[&filter.filter.sublayer], core::cmp::Reverse(filter.effective_weight), filter.id)
        });
        let mut ranked = Ranked {
            compiled: self,
            layer,
            schema: Schema::of(layer),
            rules: Rules::default(),
            sublayers: vec![],
            places: vec![],
            cells: vec![],
            continuing: 0,
        };
        for group in filters.chunk_by(|&a, &b| self.filters[a].filter.sublayer == self.filters[b].filter.sublayer) {
            ranked.sublayer(group);
        }
        let Ranked { rules, sublayers, places, cells: filter_cells, continuing, .. } = ranked;
        if sublayers.len() > MAX_SUBLAYERS {
            return Err(CompileError::TooManySublayers { layer, found: sublayers.len() });
        }
        if places.len() > MAX_FILTERS as usize {
            return Err(CompileError::TooManyFilters { layer, found: places.len() });
        }
        // places count from 1
        let filters_base = cells.len() as u32 - 1;
        cells.extend(filter_cells);
        let trees = forest::build(&rules);
        let (roots, walk) = emit::emit(cells, &rules, &trees)?;
        // a step for each answer, and one to see that there are no more
        let answers = (sublayers.len() + continuing) as u64 + 1;
        let steps = walk as u64 * (1 + continuing as u64) + answers;
        if steps > MAX_STEPS as u64 {
            return Err(CompileError::TooManySteps { layer, steps });
        }
        let entry = Cell::layer(trees.len() as u32, sublayers.len() as u32, roots, filters_base, steps as u32);
        self.layers[layer.get() as usize] =
            CompiledLayer { sublayers, places, worst_steps: steps as u32, cells: cells.len() - before };
        Ok(entry)
    }
}

/// Gives the filters of one layer their ranks, and makes their rules.
struct Ranked<'a> {
    compiled: &'a CompiledPolicy,
    layer: LayerId,
    schema: &'static Schema,
    rules: Rules,
    sublayers: Vec<Guid>,
    places: Vec<Place>,
    cells: Vec<Cell>,
    /// Filters that may let their sublayer go on.
    continuing: usize,
}

/// The conditions of one filter on one field, as alternatives.
struct FieldGroup {
    field: FieldId,
    unknown: Option<Unknown>,
    group: Group,
}

impl Ranked<'_> {
    fn sublayer(&mut self, filters: &[usize]) {
        let compiled = self.compiled;
        let Some(&first) = filters.first() else { return };
        self.sublayers.push(compiled.filters[first].filter.sublayer);
        let lowered: Vec<Vec<FieldGroup>> =
            filters.iter().map(|&index| self.lower(&compiled.filters[index].filter)).collect();
        let mut testers: HashMap<FieldId, usize> = HashMap::new();
        for group in lowered.iter().flatten().filter(|group| group.unknown.is_some()) {
            *testers.entry(group.field).or_default() += 1;
        }
        let mut marked: Vec<FieldId> = vec![];
        for (&index, groups) in filters.iter().zip(lowered) {
            let filter = &compiled.filters[index];
            let never = groups.iter().any(|group| group.group.is_empty());
            if never || self.is_passed_over(filter) {
                // it cannot change an outcome, but keeps its place, so that it can be shown
                self.place(filter, None);
                continue;
            }
            for group in groups.iter().filter(|group| testers.get(&group.field).is_some_and(|&n| n > FINE_MARKERS)) {
                if !marked.contains(&group.field) {
                    marked.push(group.field);
                    let rank = self.place(filter, group.unknown);
                    self.rules.push(rank, vec![unknown_tests(group)]);
                }
            }
            let fine = |group: &FieldGroup| group.unknown.is_some() && !marked.contains(&group.field);
            for kind in [Unknown::Late, Unknown::Unreadable] {
                if groups.iter().any(|group| fine(group) && group.unknown == Some(kind)) {
                    let rank = self.place(filter, Some(kind));
                    self.rules.push(rank, marker(&groups, kind, fine));
                }
            }
            let rank = self.place(filter, None);
            self.rules.push(rank, groups.into_iter().map(|group| group.group).collect());
        }
    }

    /// Whether nothing comes of a match: the filter continues, or names an inspection callout that nobody has registered.
    fn is_passed_over(&self, filter: &CompiledFilter) -> bool {
        match &filter.filter.action {
            Action::Continue => true,
            Action::Callout { callout, kind: CalloutKind::Inspection } => !self.compiled.registered.contains(callout),
            _ => false,
        }
    }

    /// The next place of the layer's list, for a filter or a marker; its rank.
    fn place(&mut self, filter: &CompiledFilter, marker: Option<Unknown>) -> u32 {
        let definition = &filter.filter;
        let mut flags = 0;
        if definition.flags.contains(FilterFlags::CLEAR_ACTION_RIGHT) {
            flags |= filter_flags::CLEAR_ACTION_RIGHT;
        }
        if definition.flags.contains(FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED) {
            flags |= filter_flags::PERMIT_IF_CALLOUT_UNREGISTERED;
        }
        let action = match (marker, &definition.action) {
            (Some(Unknown::Late), _) => filter_action::LATE,
            (Some(Unknown::Unreadable), _) => filter_action::UNREADABLE,
            (None, Action::Permit) => filter_action::PERMIT,
            (None, Action::Block) => filter_action::BLOCK,
            (None, Action::Continue) => filter_action::CONTINUE,
            (None, Action::Callout { kind, .. }) => match kind {
                CalloutKind::Terminating => filter_action::CALLOUT_TERMINATING,
                CalloutKind::Inspection => filter_action::CALLOUT_INSPECTION,
                CalloutKind::Unknown => filter_action::CALLOUT_UNKNOWN,
            },
        };
        let mut number = 0;
        if let (None, Action::Callout { callout, .. }) = (marker, &definition.action)
            && let Some(index) = self.compiled.registered.iter().position(|key| key == callout)
        {
            flags |= filter_flags::CALLOUT_REGISTERED;
            number = index as u32;
        }
        self.continuing += (flags & filter_flags::CALLOUT_REGISTERED != 0) as usize;
        let errno = definition.errno.map_or(0, |errno| errno.get());
        self.cells.push(Cell::filter(action, flags, errno, filter.id, number));
        self.places.push(Place { filter: filter.id, marker });
        (self.sublayers.len() as u32 - 1) << RANK_SUBLAYER_SHIFT | self.places.len() as u32
    }

    /// A filter's conditions, field by field.
    fn lower(&self, filter: &Filter) -> Vec<FieldGroup> {
        let mut fields: Vec<(FieldId, Vec<&FilterCondition>)> = vec![];
        for condition in &filter.conditions {
            match fields.iter_mut().find(|(field, _)| *field == condition.field) {
                Some((_, conditions)) => conditions.push(condition),
                None => fields.push((condition.field, vec![condition])),
            }
        }
        let lower = |(field, conditions): (FieldId, Vec<&FilterCondition>)| FieldGroup {
            field,
            unknown: unknown(self.layer, field),
            group: match self.schema.field(field) {
                Some(words) => lower::field_group(words, &conditions, &self.compiled.classes, &self.compiled.groups),
                // the layer does not have the field: nothing can match
                None => vec![],
            },
        };
        fields.into_iter().map(lower).collect()
    }
}

/// "One of the words that these conditions test is unknown."
fn unknown_tests(group: &FieldGroup) -> Group {
    let mut words: Vec<u8> = group.group.iter().flatten().map(|test| test.word).collect();
    words.sort_unstable();
    words.dedup();
    // words of one number are unknown together, and so are the two words of groups
    let groups = crate::words::GROUPS as u8;
    words.dedup_by(|word, before| *word == *before + 1 && (*word == groups + 1 || *before >= 4 && *word < 12));
    words.into_iter().map(|word| vec![WordTest { word, test: Test::Unknown }]).collect()
}

/// "The filter matches but for values that are unknown, and one that would be of this kind is."
fn marker(groups: &[FieldGroup], kind: Unknown, counts: impl Fn(&FieldGroup) -> bool) -> Vec<Group> {
    let mut rule = vec![];
    let mut unknown = vec![];
    for group in groups {
        let mut alternatives = group.group.clone();
        if group.unknown.is_some() {
            alternatives.extend(unknown_tests(group));
        }
        if counts(group) && group.unknown == Some(kind) {
            unknown.extend(unknown_tests(group));
        }
        rule.push(alternatives);
    }
    rule.push(unknown);
    rule
}
