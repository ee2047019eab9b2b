//! Records of `openwfp-abi` as keys and values of maps.

use aya::Pod;
use openwfp_abi::{
    cgroup::GroupKey,
    config::{Config, Totals},
    file::{FileKey, PathRecord},
    flow::{Flow, FlowKey, Interface},
    label::Label,
    measure::Measurement,
    process::ProcessKey,
    unix::{AbstractName, SocketFile},
};

/// A record, as the map has it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record<T>(pub T);

macro_rules! records {
    ($($record:ty),*) => { $(
        // SAFETY: `repr(C)` of integers alone, without padding; any bytes are a valid value.
        unsafe impl Pod for Record<$record> {}
    )* };
}
records!(
    ProcessKey,
    Label,
    FileKey,
    GroupKey,
    PathRecord,
    Config,
    Totals,
    Interface,
    Flow,
    FlowKey,
    Measurement,
    SocketFile,
    AbstractName
);
