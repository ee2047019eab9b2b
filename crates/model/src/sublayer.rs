//! Sublayers: the order in which the filters of different programs are asked.

use crate::builtin::BuiltInSublayer;
use crate::object::{ObjectError, ObjectKind};
use crate::{Guid, builtin};

bitflags::bitflags! {
    /// Properties of a sublayer (`FWPM_SUBLAYER_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct SublayerFlags: u32 {
        /// Kept until deleted.
        const PERSISTENT = 1;
    }
}

/// A sublayer (`FWPM_SUBLAYER0`). A sublayer stands at every layer at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sublayer {
    /// The key.
    pub key: Guid,
    /// The name, for people.
    pub name: String,
    /// A description, for people.
    pub description: String,
    /// Sublayers are walked from the highest weight to the lowest, equal ones in the order in which they were added.
    pub weight: u16,
    /// The provider that the sublayer belongs to.
    pub provider: Option<Guid>,
    /// Properties.
    pub flags: SublayerFlags,
}

impl Sublayer {
    /// Begins a sublayer of that name.
    pub fn builder(name: impl Into<String>) -> SublayerBuilder {
        SublayerBuilder {
            key: None,
            sublayer: Sublayer {
                key: Guid::ZERO,
                name: name.into(),
                description: String::new(),
                weight: 0,
                provider: None,
                flags: SublayerFlags::empty(),
            },
        }
    }
}

impl From<&BuiltInSublayer> for Sublayer {
    fn from(built_in: &BuiltInSublayer) -> Sublayer {
        Sublayer {
            key: built_in.key,
            name: built_in.display_name.to_owned(),
            description: String::new(),
            weight: built_in.weight,
            provider: None,
            flags: SublayerFlags::empty(),
        }
    }
}

/// A sublayer in the making.
#[derive(Clone, Debug)]
#[must_use]
pub struct SublayerBuilder {
    key: Option<Guid>,
    sublayer: Sublayer,
}

impl SublayerBuilder {
    /// The key; without one, it is made from the provider and the name.
    pub fn key(mut self, key: Guid) -> Self {
        self.key = Some(key);
        self
    }

    /// A description, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.sublayer.description = description.into();
        self
    }

    /// The weight; 0 without one.
    pub fn weight(mut self, weight: u16) -> Self {
        self.sublayer.weight = weight;
        self
    }

    /// The provider that the sublayer belongs to.
    pub fn provider(mut self, provider: Guid) -> Self {
        self.sublayer.provider = Some(provider);
        self
    }

    /// Properties.
    pub fn flags(mut self, flags: SublayerFlags) -> Self {
        self.sublayer.flags = flags;
        self
    }

    /// The sublayer, or the first thing that is wrong with it.
    pub fn build(mut self) -> Result<Sublayer, ObjectError> {
        let kind = ObjectKind::Sublayer;
        let sublayer = &mut self.sublayer;
        kind.check_text(&sublayer.name, &sublayer.description)?;
        kind.check_flags(sublayer.flags)?;
        sublayer.key = kind.key(self.key, sublayer.provider, &sublayer.name)?;
        if let Some(BuiltInSublayer { key, name, .. }) = builtin::sublayer(sublayer.key) {
            return Err(ObjectError::BuiltInKey { kind, key: *key, name });
        }
        Ok(self.sublayer)
    }
}
