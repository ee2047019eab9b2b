//! Providers: whoever owns objects.

use crate::object::{ObjectError, ObjectKind};
use crate::{Guid, builtin};

bitflags::bitflags! {
    /// Properties of a provider (`FWPM_PROVIDER_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ProviderFlags: u32 {
        /// Kept until deleted.
        const PERSISTENT = 1;
        /// Its persistent objects are not enforced, since its service does not start by itself. Set by the platform alone.
        const DISABLED = 16;
    }
}

/// A provider (`FWPM_PROVIDER0`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provider {
    /// The key.
    pub key: Guid,
    /// The name, for people.
    pub name: String,
    /// A description, for people.
    pub description: String,
    /// Properties.
    pub flags: ProviderFlags,
    /// The system service that the provider belongs to: its persistent objects are enforced if that starts by itself.
    pub service_name: Option<String>,
}

impl Provider {
    /// Begins a provider of that name.
    pub fn builder(name: impl Into<String>) -> ProviderBuilder {
        ProviderBuilder {
            key: None,
            provider: Provider {
                key: Guid::ZERO,
                name: name.into(),
                description: String::new(),
                flags: ProviderFlags::empty(),
                service_name: None,
            },
        }
    }
}

/// A provider in the making.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProviderBuilder {
    key: Option<Guid>,
    provider: Provider,
}

impl ProviderBuilder {
    /// The key; without one, it is made from the name.
    pub fn key(mut self, key: Guid) -> Self {
        self.key = Some(key);
        self
    }

    /// A description, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.provider.description = description.into();
        self
    }

    /// Properties.
    pub fn flags(mut self, flags: ProviderFlags) -> Self {
        self.provider.flags = flags;
        self
    }

    /// The system service that the provider belongs to.
    pub fn service_name(mut self, service_name: impl Into<String>) -> Self {
        self.provider.service_name = Some(service_name.into());
        self
    }

    /// The provider, or the first thing that is wrong with it.
    pub fn build(mut self) -> Result<Provider, ObjectError> {
        let kind = ObjectKind::Provider;
        let provider = &mut self.provider;
        kind.check_text(&provider.name, &provider.description)?;
        kind.check_flags(provider.flags)?;
        if provider.flags.contains(ProviderFlags::DISABLED) {
            return Err(ObjectError::FlagNotSettable { kind, flag: "DISABLED" });
        }
        provider.key = kind.key(self.key, None, &provider.name)?;
        if let Some(found) = builtin::provider(provider.key) {
            return Err(ObjectError::BuiltInKey { kind, key: found.key, name: found.name });
        }
        Ok(self.provider)
    }
}
