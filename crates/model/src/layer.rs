//! Layers: the points in the network stack where traffic is classified.

use std::fmt;

use crate::builtin::sublayer_keys;
use crate::generated::layers::LAYERS;
use crate::{DataType, FieldId, FieldType, Guid, names};

bitflags::bitflags! {
    /// Properties of a layer (`FWPM_LAYER_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct LayerFlags: u32 {
        /// Classified in the kernel.
        const KERNEL = 1;
        /// Cannot be deleted.
        const BUILTIN = 2;
        /// Classified far more often than changed.
        const CLASSIFY_MOSTLY = 4;
        /// Its data are buffered before they are classified.
        const BUFFERED = 8;
    }
}

/// The version of IP that a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// The runtime id of a layer: the number that Windows gives it, 0 to 98.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub(crate) u16);

impl LayerId {
    /// The layer of that number, if there is one.
    pub fn new(id: u16) -> Option<LayerId> {
        (usize::from(id) < LAYERS.len()).then_some(LayerId(id))
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What is known about the layer.
    pub fn layer(self) -> &'static Layer {
        &LAYERS[usize::from(self.0)]
    }

    /// The public name without `FWPM_LAYER_`.
    pub fn name(self) -> &'static str {
        self.layer().name
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A layer (`FWPM_LAYER0`). Layers are built in: none can be created.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The runtime id, which is also the index in [`Layer::all`].
    pub id: LayerId,
    /// The public key.
    pub key: Guid,
    /// The public name without `FWPM_LAYER_`, such as `ALE_AUTH_CONNECT_V4`.
    pub name: &'static str,
    /// The name for people, such as `ALE Connect v4 Layer`.
    pub display_name: &'static str,
    /// Properties.
    pub flags: LayerFlags,
    /// The sublayer of filters that name none.
    pub default_sublayer: Guid,
    /// The fields of the platform that conditions can test here, in the platform's order. Ours come besides:
    /// [`extension_fields`](Layer::extension_fields).
    pub fields: &'static [LayerField],
}

/// A field at a layer (`FWPM_FIELD0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerField {
    /// The field.
    pub field: FieldId,
    /// How its values are to be understood.
    pub field_type: FieldType,
    /// The type of its values.
    pub data_type: DataType,
}

impl Layer {
    /// Every layer; the index is the runtime id.
    pub fn all() -> &'static [Layer] {
        &LAYERS
    }

    /// The layer of that exact name or GUID, in any case, with or without `FWPM_LAYER_`.
    pub fn find(name: &str) -> Option<&'static Layer> {
        let short = names::without_prefix(name, PREFIX);
        let by_name = || LAYERS.iter().find(|layer| layer.name.eq_ignore_ascii_case(short));
        let by_key = || name.parse().ok().and_then(|key: Guid| LAYERS.iter().find(|layer| layer.key == key));
        by_name().or_else(by_key)
    }

    /// The layers that a name stands for: an exact name or GUID for itself, the name of a family (`ALE_AUTH_CONNECT`) for its
    /// V4 and V6 layers, any other for none.
    pub fn family(name: &str) -> Vec<LayerId> {
        if let Some(layer) = Layer::find(name) {
            return vec![layer.id];
        }
        let short = names::without_prefix(name, PREFIX);
        LAYERS
            .iter()
            .filter(|layer| layer.family_name().is_some_and(|family| family.eq_ignore_ascii_case(short)))
            .map(|layer| layer.id)
            .collect()
    }

    /// The name without `_V4` or `_V6`, for a layer that has a version.
    fn family_name(&self) -> Option<String> {
        let version = self.version_suffix()?;
        Some(self.name.replacen(version, "", 1))
    }

    fn version_suffix(&self) -> Option<&'static str> {
        ["_V4", "_V6"].into_iter().find(|version| self.name.contains(version))
    }

    /// The version of IP that the layer sees, unless it sees both or neither.
    pub fn ip_version(&self) -> Option<IpVersion> {
        match self.version_suffix()? {
            "_V4" => Some(IpVersion::V4),
            _ => Some(IpVersion::V6),
        }
    }

    /// The field at this layer, if it has it, ours included.
    pub fn field(&self, field: FieldId) -> Option<&'static LayerField> {
        self.all_fields().find(|candidate| candidate.field == field)
    }

    /// The name of a layer or family that is nearest to a wrong name.
    pub fn nearest(name: &str) -> Option<String> {
        let short = names::without_prefix(name, PREFIX);
        let families: Vec<String> = LAYERS.iter().filter_map(Layer::family_name).collect();
        let all = families.iter().map(String::as_str).chain(LAYERS.iter().map(|layer| layer.name));
        names::nearest(short, all).map(str::to_owned)
    }

    /// The name of a field of this layer that is nearest to a wrong name.
    pub fn nearest_field(&self, name: &str) -> Option<&'static str> {
        let here = self.all_fields().map(|field| field.field.name());
        let aliases = FieldId::aliases().filter(|(_, field)| self.field(*field).is_some()).map(|(alias, _)| alias);
        names::nearest(names::without_prefix(name, "FWPM_CONDITION_"), here.chain(aliases))
    }
}

const PREFIX: &str = "FWPM_LAYER_";

// What the generated tables are written with.

pub(crate) const fn kernel(
    id: LayerId,
    key: u128,
    name: &'static str,
    display_name: &'static str,
    fields: &'static [LayerField],
) -> Layer {
    let flags = LayerFlags::KERNEL.union(LayerFlags::BUILTIN).union(LayerFlags::CLASSIFY_MOSTLY);
    let default_sublayer = sublayer_keys::UNIVERSAL;
    Layer { id, key: Guid::from_u128(key), name, display_name, flags, default_sublayer, fields }
}

pub(crate) const fn buffered(
    id: LayerId,
    key: u128,
    name: &'static str,
    display_name: &'static str,
    fields: &'static [LayerField],
) -> Layer {
    let layer = kernel(id, key, name, display_name, fields);
    Layer { flags: layer.flags.union(LayerFlags::BUFFERED), ..layer }
}

pub(crate) const fn user(
    id: LayerId,
    key: u128,
    name: &'static str,
    display_name: &'static str,
    fields: &'static [LayerField],
) -> Layer {
    let layer = kernel(id, key, name, display_name, fields);
    Layer { flags: LayerFlags::BUILTIN.union(LayerFlags::CLASSIFY_MOSTLY), ..layer }
}

pub(crate) const fn rarely_classified(
    id: LayerId,
    key: u128,
    name: &'static str,
    display_name: &'static str,
    fields: &'static [LayerField],
) -> Layer {
    let layer = kernel(id, key, name, display_name, fields);
    Layer { flags: LayerFlags::BUILTIN, ..layer }
}

pub(crate) const fn raw(field: FieldId, data_type: DataType) -> LayerField {
    LayerField { field, field_type: FieldType::RawData, data_type }
}

pub(crate) const fn address(field: FieldId, data_type: DataType) -> LayerField {
    LayerField { field, field_type: FieldType::IpAddress, data_type }
}

pub(crate) const fn flags(field: FieldId, data_type: DataType) -> LayerField {
    LayerField { field, field_type: FieldType::Flags, data_type }
}
