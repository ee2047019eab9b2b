//! Which program each process runs, as the kernel has it.

use crate::{
    load::{LoadError, Shims},
    mounts::{self, Mount},
    records::Record,
};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use openwfp_abi::{
    counters,
    file::{FileKey, PathRecord},
    label::{Label, LabelState},
    process::ProcessKey,
};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// The maps of the programs that label processes.
pub struct Labels {
    labels: HashMap<MapData, Record<ProcessKey>, Record<Label>>,
    paths: HashMap<MapData, Record<FileKey>, Record<PathRecord>>,
    counters: Array<MapData, u64>,
}

impl Labels {
    /// The maps of a load that this process made.
    pub fn take(shims: &mut Shims) -> Result<Self, LoadError> {
        Self::open(|name| {
            let map = shims.ebpf().take_map(name);
            map.ok_or(LoadError::ObjectLacks { name })
        })
    }

    /// The maps that were pinned in a folder.
    pub fn from_pins(folder: &Path) -> Result<Self, LoadError> {
        Self::open(|name| {
            let map = MapData::from_pin(folder.join(name)).and_then(Map::from_map_data);
            map.map_err(|source| failed(name, source))
        })
    }

    fn open(mut map: impl FnMut(&'static str) -> Result<Map, LoadError>) -> Result<Self, LoadError> {
        let (labels, paths, counters) = ("LABELS", "PATHS", "COUNTERS");
        Ok(Self {
            labels: map(labels)?.try_into().map_err(|source| failed(labels, source))?,
            paths: map(paths)?.try_into().map_err(|source| failed(paths, source))?,
            counters: map(counters)?.try_into().map_err(|source| failed(counters, source))?,
        })
    }

    /// Every labelled process. Processes come and go meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = (ProcessKey, Label)> {
        let entries = self.labels.iter().filter_map(Result::ok);
        entries.map(|(process, label)| (process.0, label.0))
    }

    /// The label of the process with this number.
    pub fn of(&self, pid: u32) -> Option<Label> {
        // a number that is used again has a later start
        let labels = self.iter().filter(|(process, _)| process.tgid == pid);
        labels.max_by_key(|(process, _)| process.started).map(|(_, label)| label)
    }

    /// The path inside its file system of a program that was executed, if it is still kept.
    pub fn inner_path(&self, file: &FileKey) -> Option<InnerPath> {
        let record = self.paths.get(&Record(*file), 0).ok()?.0;
        Some(InnerPath { path: OsString::from_vec(record.shown().to_vec()).into(), is_cut: record.is_cut() })
    }

    /// A label in words: the path as this process sees it where it can, with what there is to say.
    pub fn describe(&self, label: &Label, mounts: &[Mount]) -> String {
        if !label.state.is_known() {
            return match label.state {
                LabelState::NONE => "(unknown: not executed under openwfp)",
                LabelState::NO_SCRATCH => "(unknown: too many programs executed at once)",
                _ => "(unknown: unreadable)",
            }
            .into();
        }
        let Some(inner) = self.inner_path(&label.file()) else {
            return "(path not kept)".into();
        };
        if inner.is_cut {
            return format!("…{}", inner.path.display());
        }
        let visible = mounts::visible(mounts, label.device, &inner.path);
        let shown = visible.unwrap_or(inner.path);
        match label.state {
            LabelState::UNLINKED => format!("{} (deleted)", shown.display()),
            _ => shown.display().to_string(),
        }
    }

    /// A number of [`openwfp_abi::counters`].
    pub(crate) fn counter(&self, counter: u32) -> u64 {
        self.counters.get(&counter, 0).unwrap_or(0)
    }

    /// (what went wrong, how often), for what did.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        [
            (counters::NO_SCRATCH, "processes not labelled: no scratch buffer was free"),
            (counters::LABELS_FULL, "processes not labelled: too many processes"),
            (counters::PATHS_REFUSED, "paths not kept"),
            (counters::WALK_FAILED, "processes not labelled: unreadable kernel structures"),
        ]
        .into_iter()
        .map(|(counter, text)| (text, self.counter(counter)))
        .filter(|(_, count)| *count > 0)
        .collect()
    }
}

/// A path inside a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerPath {
    /// The path, from the root of its file system; a bare name for a file that is in no folder.
    pub path: PathBuf,
    /// Its beginning is missing.
    pub is_cut: bool,
}

fn failed(name: &'static str, source: MapError) -> LoadError {
    LoadError::Map { name, source: Box::new(source) }
}
