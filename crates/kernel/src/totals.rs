//! What was permitted and blocked so far, by layer.

use crate::{load::LoadError, records::Record};
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use openwfp_abi::config::Totals;
use openwfp_model::{Layer, LayerId};
use std::path::Path;

/// The totals of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerTotals {
    /// The layer.
    pub layer: LayerId,
    /// Events that were permitted.
    pub permitted: u64,
    /// Events that were blocked (in a dry run: that would have been).
    pub blocked: u64,
}

/// The layers that every packet of a direction and version of IP meets, the first of them first.
pub(crate) const PACKETS: [[LayerId; 2]; 4] = [
    [LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_TRANSPORT_V4],
    [LayerId::INBOUND_IPPACKET_V6, LayerId::INBOUND_TRANSPORT_V6],
    [LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_TRANSPORT_V4],
    [LayerId::OUTBOUND_IPPACKET_V6, LayerId::OUTBOUND_TRANSPORT_V6],
];

/// The map of totals.
pub struct TotalsMap(PerCpuArray<MapData, Record<Totals>>);

const NAME: &str = "TOTALS";

fn failed(source: MapError) -> LoadError {
    LoadError::Map { name: NAME, source: Box::new(source) }
}

impl TotalsMap {
    pub(crate) fn new(map: Map) -> Result<Self, LoadError> {
        map.try_into().map(Self).map_err(failed)
    }

    /// The totals that were pinned in a folder.
    pub fn from_pins(folder: &Path) -> Result<Self, LoadError> {
        let map = MapData::from_pin(folder.join(NAME)).and_then(Map::from_map_data).map_err(failed)?;
        Self::new(map)
    }

    /// Every layer at which something happened, in order.
    pub fn read(&self) -> Result<Vec<LayerTotals>, LoadError> {
        let mut all = vec![];
        for layer in Layer::all() {
            let of_cpus = self.0.get(&u32::from(layer.id.get()), 0).map_err(failed)?;
            let permitted = of_cpus.iter().map(|totals| totals.0.permitted).sum();
            let blocked = of_cpus.iter().map(|totals| totals.0.blocked).sum();
            if permitted | blocked != 0 {
                all.push(LayerTotals { layer: layer.id, permitted, blocked });
            }
        }
        Ok(all)
    }
}
