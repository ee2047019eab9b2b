//! The maps that the filtering programs share, besides those of the labels.

use crate::storage::SocketStorage;
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use openwfp_abi::{
    config::{Config, LAYERS, Totals},
    drop::REASONS,
    file::FileKey,
    flow::{Endpoint, FLOWS_ENTRIES, Flow, FlowKey, Interface},
};
use openwfp_engine::Cell;

/// The cells of the policy image. The loader makes it as large as the policy asks for.
#[map]
pub static CELLS: Array<Cell> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

/// What the programs are to do.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// The applications that the policy names: a file → its class number in images of an even and of an odd generation.
#[map]
pub static APPLICATIONS: HashMap<FileKey, [u32; 2]> = HashMap::with_max_entries(4096, 0);

/// Network interfaces by index.
#[map]
pub static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(4096, 0);

/// The addresses of this machine, as the words of incoming values (IPv4 in the first, the others 0), and the index of the
/// interface that has each. Few have more than a handful, so room is taken as they come.
#[map]
pub static ADDRESSES: HashMap<[u32; 4], u32> = HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Authorizations of flows of datagrams.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_ENTRIES, 0);

/// What is kept with sockets.
#[btf_map]
pub static ENDPOINTS: SocketStorage<Endpoint> = SocketStorage::new();

/// Classifications, to be shown.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// What the kernel's reasons to drop a packet say: a number of [`class`](openwfp_abi::drop::class) for each.
#[map]
pub static DROPS: Array<u32> = Array::with_max_entries(REASONS, 0);

/// How many events each CPU has had.
#[map]
pub static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What was permitted and blocked.
#[map]
pub static TOTALS: PerCpuArray<Totals> = PerCpuArray::with_max_entries(LAYERS as u32, 0);

/// 0: the last flow id; 1: how many sockets there were whose packets meet the authorization layers, whatever the policy
/// asks for: those that are neither TCP nor UDP, and those that connect to no address.
#[map]
pub static SHARED: Array<u64> = Array::with_max_entries(2, 0);
