//! The filter that led to a callout, as the callout sees it.

use openwfp_model::{CalloutKind, Data, FilterFlags, Guid, LayerId};

/// A filter that names a callout (`FWPS_FILTER`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The id that it has in the policy and in events.
    pub id: u64,
    /// The key.
    pub key: Guid,
    /// The name.
    pub name: String,
    /// The layer.
    pub layer: LayerId,
    /// The key of the sublayer.
    pub sublayer: Guid,
    /// The 64 bits that order it within the sublayer.
    pub weight: u64,
    /// What the callout may answer.
    pub kind: CalloutKind,
    /// Properties. [`FilterFlags::CLEAR_ACTION_RIGHT`] tells the callout to clear the right with its answer, which
    /// [`ClassifyOut`](crate::ClassifyOut) does.
    pub flags: FilterFlags,
    /// The provider context, where the filter has one.
    pub provider_context: Option<ProviderContext>,
}

impl Filter {
    /// A filter without flags or context, in the layer's default sublayer.
    #[must_use]
    pub fn new(id: u64, key: Guid, name: impl Into<String>, layer: LayerId, kind: CalloutKind) -> Self {
        let sublayer = layer.layer().default_sublayer;
        let (flags, provider_context) = (FilterFlags::empty(), None);
        Self { id, key, name: name.into(), layer, sublayer, weight: 0, kind, flags, provider_context }
    }

    /// The same with flags.
    #[must_use]
    pub fn with_flags(mut self, flags: FilterFlags) -> Self {
        self.flags = flags;
        self
    }

    /// The same in a sublayer, with a weight.
    #[must_use]
    pub fn in_sublayer(mut self, sublayer: Guid, weight: u64) -> Self {
        (self.sublayer, self.weight) = (sublayer, weight);
        self
    }

    /// The same with a provider context.
    #[must_use]
    pub fn with_context(mut self, context: ProviderContext) -> Self {
        self.provider_context = Some(context);
        self
    }

    /// The data of the provider context.
    #[must_use]
    pub fn data(&self) -> Option<&Data> {
        self.provider_context.as_ref().map(|context| &context.data)
    }

    /// One entry of the data of the provider context, where they are a table.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Data> {
        match self.data()? {
            Data::Table(table) => table.get(name),
            _ => None,
        }
    }

    /// The data of the provider context as bytes: those of `base64` as they are, text as UTF-8.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.data()? {
            Data::Bytes(bytes) => Some(bytes),
            Data::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }
}

/// A provider context (`FWPM_PROVIDER_CONTEXT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderContext {
    /// The key.
    pub key: Guid,
    /// The name.
    pub name: String,
    /// The data, as the policy file gives them.
    pub data: Data,
}
