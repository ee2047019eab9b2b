//! What a policy names and the programs know by class numbers: applications in the `APPLICATIONS` map, control groups, units and
//! containers in `GROUP_CLASSES`; and what is to be changed there for another policy.
//!
//! An entry has a class for images of even and one for images of odd generations, so that it can serve two policies at
//! once. It is changed in place only where nothing else helps: the kernel writes a changed entry into the memory of the one
//! that was changed before it, which a program may be about to read. So classes keep their numbers from policy to policy
//! (see `compile_after`), entries that are new are added before the switch, and those that are out of use are taken away after
//! it, when no program can be about to read them.

use crate::{
    applications::{Application, ApplicationError},
    grace::Grace,
    load::{LoadError, Shims},
    records::Record,
};
use aya::{
    Pod,
    maps::{HashMap as Map, MapData, MapError},
};
use openwfp_abi::{
    cgroup::{self, GroupKey, kind},
    file::FileKey,
};
use openwfp_engine::{CompiledPolicy, group_above};
use openwfp_model::{FieldId, Value, extension};
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::Path,
};

/// What the programs look class numbers up by.
pub(crate) trait Key: Copy + Eq + Hash {
    /// The map.
    const MAP: &'static str;

    /// Keys of different fields may have the same number, which means something else with each.
    fn field(&self) -> FieldId;
}

impl Key for FileKey {
    const MAP: &'static str = "APPLICATIONS";

    fn field(&self) -> FieldId {
        FieldId::ALE_APP_ID
    }
}

impl Key for GroupKey {
    const MAP: &'static str = "GROUP_CLASSES";

    fn field(&self) -> FieldId {
        match self.kind {
            kind::UNIT => FieldId::LINUX_SYSTEMD_UNIT,
            kind::CONTAINER => FieldId::LINUX_CONTAINER,
            _ => FieldId::LINUX_CGROUP,
        }
    }
}

/// What the map holds.
pub(crate) struct Known<K> {
    entries: HashMap<K, [u32; 2]>,
    /// What the policy that holds names. Its files are held open, so that their file systems stay mounted: device numbers are
    /// given out again.
    current: Named<K>,
}

/// What a policy names.
pub(crate) struct Named<K> {
    classes: HashMap<K, u32>,
    /// The numbers that conditions of the policy test, also those of applications that were not found.
    tested: HashSet<(FieldId, u32)>,
    _files: Vec<Application>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), current: Named::default() }
    }
}

impl<K> Default for Named<K> {
    fn default() -> Self {
        Self { classes: HashMap::new(), tested: HashSet::new(), _files: vec![] }
    }
}

impl Named<FileKey> {
    /// The number of each.
    pub(crate) fn classes(&self) -> &HashMap<FileKey, u32> {
        &self.classes
    }

    /// Looks the applications of a policy up.
    pub(crate) fn find(policy: &CompiledPolicy, hash_key: [u64; 2]) -> (Self, Vec<ApplicationError>) {
        let (mut named, mut missing) = (Self::default(), vec![]);
        for (class, value) in policy.classes().named(FieldId::ALE_APP_ID) {
            named.tested.insert((FieldId::ALE_APP_ID, class));
            let Value::Application(path) = value else { continue };
            match Application::find(Path::new(path)) {
                Ok(application) => {
                    named.classes.insert(application.key(hash_key), class);
                    named._files.push(application);
                }
                Err(error) => missing.push(error),
            }
        }
        (named, missing)
    }
}

impl Named<GroupKey> {
    /// The control groups, units and containers of a policy, by the hashes of their names: whether they exist does not matter.
    pub(crate) fn groups(policy: &CompiledPolicy, hash_key: [u64; 2]) -> Self {
        let mut named = Self::default();
        let mut add = |kind, hash, class| {
            let key = GroupKey { kind, hash };
            named.tested.insert((key.field(), class));
            named.classes.insert(key, class);
        };
        let classes = policy.classes();
        let text = |value: &Value| if let Value::UnicodeString(text) = value { text.clone() } else { String::new() };
        for (class, value) in classes.named(FieldId::LINUX_CGROUP) {
            match group_above(value) {
                Some(group) => add(kind::BELOW, cgroup::path(hash_key, group), class),
                None => add(kind::PATH, cgroup::path(hash_key, &text(value)), class),
            }
        }
        let name = |name: String| cgroup::name(hash_key, name.as_bytes());
        for (class, value) in classes.named(FieldId::LINUX_SYSTEMD_UNIT) {
            extension::unit_groups(&text(value)).into_iter().for_each(|group| add(kind::UNIT, name(group), class));
        }
        for (class, value) in classes.named(FieldId::LINUX_CONTAINER) {
            let container = text(value);
            extension::container_groups(&container).for_each(|group| add(kind::CONTAINER, name(group), class));
        }
        named
    }
}

/// What has to be written before a switch.
#[derive(Debug, PartialEq, Eq)]
struct Changes<K> {
    new: Vec<(K, [u32; 2])>,
    in_place: Vec<(K, [u32; 2])>,
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self { new: vec![], in_place: vec![] }
    }
}

impl<K: Key> Known<K>
where
    Record<K>: Pod,
{
    /// What has to be written so that images of `generation` find the classes of `next`, and those of the generation before
    /// what they found before.
    fn changes(&self, next: &Named<K>, generation: u32) -> Changes<K> {
        let place = generation as usize & 1;
        let mut changes = Changes::default();
        for (&key, &class) in &next.classes {
            match self.entries.get(&key) {
                Some(entry) if entry[place] == class => {}
                Some(&entry) => {
                    let mut entry = entry;
                    entry[place] = class;
                    changes.in_place.push((key, entry));
                }
                // a number that the policy before does not test is to it what 0 is: the entry can stay as it is
                None if !self.current.tested.contains(&(key.field(), class)) => changes.new.push((key, [class; 2])),
                None => {
                    let mut entry = [0; 2];
                    entry[place] = class;
                    changes.new.push((key, entry));
                }
            }
        }
        for (&key, &entry) in &self.entries {
            if !next.classes.contains_key(&key) && next.tested.contains(&(key.field(), entry[place])) {
                let mut entry = entry;
                entry[place] = 0;
                changes.in_place.push((key, entry));
            }
        }
        changes
    }

    /// Writes what images of `generation` need. The policy that holds finds what it found before, also when this fails.
    pub(crate) fn write(
        &mut self,
        shims: &mut Shims,
        next: &Named<K>,
        generation: u32,
        grace: Option<&Grace>,
    ) -> Result<(), LoadError> {
        let changes = self.changes(next, generation);
        if changes == Changes::default() {
            return Ok(());
        }
        let mut map = open(shims)?;
        for (key, entry) in changes.new {
            map.insert(Record(key), entry, 0).map_err(failed::<K>)?;
            self.entries.insert(key, entry);
        }
        for (key, entry) in changes.in_place {
            map.insert(Record(key), entry, 0).map_err(failed::<K>)?;
            self.entries.insert(key, entry);
            // the next one is written where this one's predecessor was
            if let Some(grace) = grace {
                grace.wait().map_err(not_waited)?;
            }
        }
        Ok(())
    }

    /// The policy that named these holds now.
    pub(crate) fn switched(&mut self, named: Named<K>) {
        self.current = named;
    }

    /// Takes away what the policy that holds does not name. Call it when no program works for the one before any more.
    pub(crate) fn clear_up(&mut self, shims: &mut Shims, grace: &Grace) -> Result<(), LoadError> {
        let stale: Vec<K> =
            self.entries.keys().filter(|key| !self.current.classes.contains_key(key)).copied().collect();
        if stale.is_empty() {
            return Ok(());
        }
        let mut map = open(shims)?;
        for key in stale {
            match map.remove(&Record(key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed::<K>(error)),
            }
            self.entries.remove(&key);
        }
        // their memory is given to the next ones that are added
        grace.wait().map_err(not_waited)
    }
}

fn open<K: Key>(shims: &mut Shims) -> Result<Map<&mut MapData, Record<K>, [u32; 2]>, LoadError>
where
    Record<K>: Pod,
{
    let map = shims.ebpf().map_mut(K::MAP).ok_or(LoadError::ObjectLacks { name: K::MAP })?;
    map.try_into().map_err(failed::<K>)
}

fn failed<K: Key>(source: MapError) -> LoadError {
    LoadError::Map { name: K::MAP, source: Box::new(source) }
}

/// A grace period that could not be waited for.
pub(crate) fn not_waited(source: std::io::Error) -> LoadError {
    LoadError::System { what: "cannot wait for the running programs", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> FileKey {
        FileKey::new(1, [number, 0])
    }

    fn named(classes: &[(u64, u32)]) -> Named<FileKey> {
        Named {
            classes: classes.iter().map(|&(file, class)| (key(file), class)).collect(),
            tested: classes.iter().map(|&(_, class)| (FieldId::ALE_APP_ID, class)).collect(),
            ..Named::default()
        }
    }

    /// A map that serves the applications of generation 1 and then takes in those of generation 2.
    fn after(first: &[(u64, u32)], second: &[(u64, u32)]) -> Changes<FileKey> {
        let first = named(first);
        let entries = Known::default().changes(&first, 1).new.into_iter().collect();
        let mut changes = Known { entries, current: first }.changes(&named(second), 2);
        changes.new.sort_by_key(|(key, _)| key.path);
        changes.in_place.sort_by_key(|(key, _)| key.path);
        changes
    }

    #[test]
    fn a_policy_that_keeps_its_numbers_only_adds() {
        let changes = after(&[(10, 1), (20, 2)], &[(20, 2), (30, 3)]);
        assert_eq!(changes, Changes { new: vec![(key(30), [3; 2])], in_place: vec![] });
        assert_eq!(after(&[(10, 1)], &[]), Changes::default());
        assert_eq!(after(&[(10, 1)], &[(10, 1)]), Changes::default());
    }

    #[test]
    fn a_number_that_means_another_application_now_is_seen_by_the_new_policy_alone() {
        // 1 was file 10, and is file 20
        let changes = after(&[(10, 1)], &[(20, 1)]);
        assert_eq!(changes.new, [(key(20), [1, 0])], "generation 1 does not take it for file 10");
        assert_eq!(changes.in_place, [(key(10), [0, 1])], "generation 2 does not take it for file 20");
        // the two change places
        let changes = after(&[(10, 1), (20, 2)], &[(10, 2), (20, 1)]);
        assert_eq!(changes.new, []);
        assert_eq!(changes.in_place, [(key(10), [2, 1]), (key(20), [1, 2])]);
    }
}
