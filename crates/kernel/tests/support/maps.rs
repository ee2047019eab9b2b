//! The maps of the programs of an enforcement, as the kernel tells of them.

use super::live::Live;
use aya::maps::{HashMap, Map, MapData, MapInfo};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

/// The numbers of the maps that the programs use.
fn ids(live: &mut Live) -> BTreeSet<u32> {
    let programs = live.enforcement.shims().ebpf().programs();
    let infos = programs.filter_map(|(_, program)| program.info().ok());
    infos.filter_map(|info| info.map_ids().unwrap()).flatten().collect()
}

/// How many bytes of memory each map has now, by name and number: its `memlock` in `/proc/self/fdinfo`, which counts entries that
/// were not made with the map (from Linux 6.4 on).
pub fn memory(live: &mut Live) -> BTreeMap<(String, u32), u64> {
    let of_map = |id| {
        let info = MapInfo::from_id(id).unwrap();
        let descriptor = info.fd().unwrap();
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd())).unwrap();
        let bytes = about.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap().trim().parse().unwrap();
        ((info.name_as_str().unwrap_or_default().to_owned(), id), bytes)
    };
    ids(live).into_iter().map(of_map).collect()
}

/// Makes all flows of datagrams older: as if each had been used so much earlier.
pub fn age_flows(live: &mut Live, by: Duration) {
    let names = |id: &u32| MapInfo::from_id(*id).unwrap().name_as_str() == Some("FLOWS");
    let id = ids(live).into_iter().find(names).expect("a table of flows");
    let map = Map::from_map_data(MapData::from_id(id).unwrap()).unwrap();
    // socket, addresses, ports; id, generation and layer, time of use, network and whether it was refused
    let mut flows: HashMap<_, [u64; 7], [u64; 4]> = map.try_into().unwrap();
    let all: Vec<_> = flows.iter().map(Result::unwrap).collect();
    assert!(!all.is_empty());
    for (key, mut flow) in all {
        flow[2] = flow[2].saturating_sub(by.as_nanos() as u64);
        flows.insert(key, flow, 0).unwrap();
    }
}
