//! Callouts: code that filters name.

use std::collections::BTreeMap;

use crate::object::{ObjectError, ObjectKind};
use crate::{Data, Guid, LayerId, builtin, names};

bitflags::bitflags! {
    /// Properties of a callout (`FWPM_CALLOUT_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct CalloutFlags: u32 {
        /// Kept until deleted.
        const PERSISTENT = 0x1_0000;
        /// It reads the provider contexts of its filters.
        const USES_PROVIDER_CONTEXT = 0x2_0000;
        /// Someone answers for it now. Set by the platform alone.
        const REGISTERED = 0x4_0000;
    }
}

/// Who answers for a callout. Ours: on Windows a driver does.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum CalloutServer {
    /// Whoever registers under the callout's key.
    #[default]
    Registered,
    /// A callout that comes with openwfp, such as `openwfp.dns-monitor`.
    BuiltIn(String),
    /// An executable that is started for it.
    Host {
        /// Its absolute path.
        path: String,
        /// The user that it runs as, by uid; an unprivileged one without.
        user: Option<u32>,
    },
}

/// A callout (`FWPM_CALLOUT0`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Callout {
    /// The key.
    pub key: Guid,
    /// The name, for people.
    pub name: String,
    /// A description, for people.
    pub description: String,
    /// Properties.
    pub flags: CalloutFlags,
    /// The provider that the callout belongs to.
    pub provider: Option<Guid>,
    /// The layer at which filters may name it. Ours: none means any layer.
    pub layer: Option<LayerId>,
    /// Who answers for it.
    pub server: CalloutServer,
    /// Handed to whoever answers for it.
    pub settings: BTreeMap<String, Data>,
}

impl Callout {
    /// Begins a callout of that name.
    pub fn builder(name: impl Into<String>) -> CalloutBuilder {
        CalloutBuilder {
            key: None,
            callout: Callout {
                key: Guid::ZERO,
                name: name.into(),
                description: String::new(),
                flags: CalloutFlags::empty(),
                provider: None,
                layer: None,
                server: CalloutServer::default(),
                settings: BTreeMap::new(),
            },
        }
    }
}

/// A callout in the making.
#[derive(Clone, Debug)]
#[must_use]
pub struct CalloutBuilder {
    key: Option<Guid>,
    callout: Callout,
}

impl CalloutBuilder {
    /// The key; without one, it is made from the provider and the name.
    pub fn key(mut self, key: Guid) -> Self {
        self.key = Some(key);
        self
    }

    /// A description, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.callout.description = description.into();
        self
    }

    /// Properties.
    pub fn flags(mut self, flags: CalloutFlags) -> Self {
        self.callout.flags = flags;
        self
    }

    /// The provider that the callout belongs to.
    pub fn provider(mut self, provider: Guid) -> Self {
        self.callout.provider = Some(provider);
        self
    }

    /// The only layer at which filters may name it.
    pub fn layer(mut self, layer: LayerId) -> Self {
        self.callout.layer = Some(layer);
        self
    }

    /// Who answers for it; whoever registers, without.
    pub fn server(mut self, server: CalloutServer) -> Self {
        self.callout.server = server;
        self
    }

    /// Handed to whoever answers for it.
    pub fn settings(mut self, settings: BTreeMap<String, Data>) -> Self {
        self.callout.settings = settings;
        self
    }

    /// The callout, or the first thing that is wrong with it.
    pub fn build(mut self) -> Result<Callout, ObjectError> {
        let kind = ObjectKind::Callout;
        let callout = &mut self.callout;
        kind.check_text(&callout.name, &callout.description)?;
        kind.check_flags(callout.flags)?;
        if callout.flags.contains(CalloutFlags::REGISTERED) {
            return Err(ObjectError::FlagNotSettable { kind, flag: "REGISTERED" });
        }
        if let CalloutServer::Host { path, .. } = &callout.server
            && (!path.starts_with('/') || path.contains('\0'))
        {
            return Err(ObjectError::RelativeHost(names::excerpt(path)));
        }
        callout.key = kind.key(self.key, callout.provider, &callout.name)?;
        if let Some(found) = builtin::callout(callout.key) {
            return Err(ObjectError::BuiltInKey { kind, key: found.key, name: found.name });
        }
        Ok(self.callout)
    }
}
