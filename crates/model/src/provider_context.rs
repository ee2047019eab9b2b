//! Provider contexts: data that filters hand to their callouts.

use crate::object::{ObjectError, ObjectKind};
use crate::{Data, Guid, builtin};

bitflags::bitflags! {
    /// Properties of a provider context (`FWPM_PROVIDER_CONTEXT_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ProviderContextFlags: u32 {
        /// Kept until deleted.
        const PERSISTENT = 1;
        /// Also given to services of older versions. Set by the platform alone.
        const DOWNLEVEL = 2;
    }
}

/// A provider context (`FWPM_PROVIDER_CONTEXT0`, type `FWPM_GENERAL_CONTEXT`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderContext {
    /// The key.
    pub key: Guid,
    /// The name, for people.
    pub name: String,
    /// A description, for people.
    pub description: String,
    /// Properties.
    pub flags: ProviderContextFlags,
    /// The provider that the context belongs to.
    pub provider: Option<Guid>,
    /// The data; the platform does not look into them.
    pub data: Data,
}

impl ProviderContext {
    /// Begins a provider context of that name, with those data.
    pub fn builder(name: impl Into<String>, data: Data) -> ProviderContextBuilder {
        ProviderContextBuilder {
            key: None,
            context: ProviderContext {
                key: Guid::ZERO,
                name: name.into(),
                description: String::new(),
                flags: ProviderContextFlags::empty(),
                provider: None,
                data,
            },
        }
    }
}

/// A provider context in the making.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProviderContextBuilder {
    key: Option<Guid>,
    context: ProviderContext,
}

impl ProviderContextBuilder {
    /// The key; without one, it is made from the provider and the name.
    pub fn key(mut self, key: Guid) -> Self {
        self.key = Some(key);
        self
    }

    /// A description, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.context.description = description.into();
        self
    }

    /// Properties.
    pub fn flags(mut self, flags: ProviderContextFlags) -> Self {
        self.context.flags = flags;
        self
    }

    /// The provider that the context belongs to.
    pub fn provider(mut self, provider: Guid) -> Self {
        self.context.provider = Some(provider);
        self
    }

    /// The provider context, or the first thing that is wrong with it.
    pub fn build(mut self) -> Result<ProviderContext, ObjectError> {
        let kind = ObjectKind::ProviderContext;
        let context = &mut self.context;
        kind.check_text(&context.name, &context.description)?;
        kind.check_flags(context.flags)?;
        if context.flags.contains(ProviderContextFlags::DOWNLEVEL) {
            return Err(ObjectError::FlagNotSettable { kind, flag: "DOWNLEVEL" });
        }
        context.key = kind.key(self.key, context.provider, &context.name)?;
        if let Some(found) = builtin::provider_context(context.key) {
            return Err(ObjectError::BuiltInKey { kind, key: found.key, name: found.name });
        }
        Ok(self.context)
    }
}
