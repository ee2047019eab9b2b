//! From what a packet shows to the incoming values of a layer.
//!
//! What a packet cannot show (the application, the user, mostly the interface) stays empty, so that filters that test it do not
//! match. Where each field stands among the words is the engine's [`Schema`]; [`super::facts`] knows what the fields mean.

use openwfp_engine::{EMPTY, Schema, Values};
use openwfp_model::{ConditionFlags, IpVersion, LayerId};

use super::facts::{FIELDS, Facts, fact};
use super::stage::{DISCARDS, LAYERS, STAGES, Stage, number};
use crate::flow::Direction;

/// The values of one layer. Words that no fact fills are never written and stay empty.
struct LayerValues {
    /// Pairs of a fact and the word that it fills.
    filled: Vec<(u8, u8)>,
    values: Values,
}

/// Fills in the values of every layer.
pub(super) struct IncomingValues {
    /// For each stage and version its layer, and that of what it discards.
    layers: Vec<[[Option<LayerValues>; 2]; 2]>,
    pub(super) facts: Facts,
}

impl IncomingValues {
    pub(super) fn new() -> Self {
        let layers = (0..STAGES).map(|stage| {
            [0, 1].map(|version| {
                let discard = DISCARDS[stage].map(|versions| LayerValues::new(versions[version]));
                [Some(LayerValues::new(LAYERS[stage][version])), discard]
            })
        });
        Self { layers: layers.collect(), facts: Facts::new() }
    }

    /// The values at the layer of a stage, or at that of what it discards, with flags that are set there alone. `direction` is the one
    /// that the layer knows: of the packet, or of the connection.
    #[inline]
    pub(super) fn at(&mut self, stage: Stage, discard: bool, flags: ConditionFlags, direction: Direction) -> &Values {
        self.facts.words[fact::FLAGS] = (self.facts.flags | flags).bits().into();
        self.facts.words[fact::DIRECTION] = direction as u64;
        let layer = &mut self.layers[stage as usize][number(self.facts.version)][usize::from(discard)];
        const NONE: Values = Values::new();
        let Some(layer) = layer else { return const { &NONE } };
        for &(fact, word) in &layer.filled {
            match u32::try_from(self.facts.words[usize::from(fact)]) {
                Ok(known) => layer.values.set(usize::from(word), known),
                Err(_) => layer.values.set_empty(usize::from(word)),
            }
        }
        &layer.values
    }

    /// The version of IP as which the packet at hand is classified.
    #[inline]
    pub(super) const fn version(&self) -> IpVersion {
        self.facts.version
    }
}

impl LayerValues {
    fn new(layer: LayerId) -> Self {
        let schema = Schema::of(layer);
        let mut filled = Vec::new();
        for (field, fact) in FIELDS {
            let Some(words) = schema.field(field) else { continue };
            // Words and facts are numbered by far less than a byte holds.
            filled.extend((0..words.count).map(|number| ((fact + number) as u8, (words.first + number) as u8)));
        }
        debug_assert!(filled.iter().all(|&(fact, _)| usize::from(fact) < fact::COUNT) && EMPTY > u32::MAX.into());
        Self { filled, values: Values::new() }
    }
}

#[cfg(test)]
mod tests;
