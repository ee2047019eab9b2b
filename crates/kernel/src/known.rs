//! The applications that the programs know: the `APPLICATIONS` map, and what is to be changed in it for another policy.
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
use aya::maps::{HashMap as Map, MapData, MapError};
use openwfp_abi::file::FileKey;
use openwfp_engine::CompiledPolicy;
use openwfp_model::{FieldId, Value};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

const NAME: &str = "APPLICATIONS";

/// What the map holds.
#[derive(Default)]
pub(crate) struct Known {
    entries: HashMap<FileKey, [u32; 2]>,
    /// The applications of the policy that holds. Its files are held open, so that their file systems stay mounted: device
    /// numbers are given out again.
    current: Named,
}

/// The applications that a policy names.
#[derive(Default)]
pub(crate) struct Named {
    classes: HashMap<FileKey, u32>,
    /// The numbers that conditions of the policy test, also those of applications that were not found.
    tested: HashSet<u32>,
    _files: Vec<Application>,
}

impl Named {
    /// The number of each.
    pub(crate) fn classes(&self) -> &HashMap<FileKey, u32> {
        &self.classes
    }

    /// Looks the applications of a policy up.
    pub(crate) fn find(policy: &CompiledPolicy, hash_key: [u64; 2]) -> (Self, Vec<ApplicationError>) {
        let (mut named, mut missing) = (Self::default(), vec![]);
        for (class, value) in policy.classes().named(FieldId::ALE_APP_ID) {
            named.tested.insert(class);
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

/// What has to be written before a switch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    new: Vec<(FileKey, [u32; 2])>,
    in_place: Vec<(FileKey, [u32; 2])>,
}

impl Known {
    /// What has to be written so that images of `generation` find the classes of `next`, and those of the generation before
    /// what they found before.
    fn changes(&self, next: &Named, generation: u32) -> Changes {
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
                None if !self.current.tested.contains(&class) => changes.new.push((key, [class; 2])),
                None => {
                    let mut entry = [0; 2];
                    entry[place] = class;
                    changes.new.push((key, entry));
                }
            }
        }
        for (&key, &entry) in &self.entries {
            if !next.classes.contains_key(&key) && next.tested.contains(&entry[place]) {
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
        next: &Named,
        generation: u32,
        grace: Option<&Grace>,
    ) -> Result<(), LoadError> {
        let changes = self.changes(next, generation);
        let mut map = open(shims)?;
        for (key, entry) in changes.new {
            map.insert(Record(key), entry, 0).map_err(failed)?;
            self.entries.insert(key, entry);
        }
        for (key, entry) in changes.in_place {
            map.insert(Record(key), entry, 0).map_err(failed)?;
            self.entries.insert(key, entry);
            // the next one is written where this one's predecessor was
            if let Some(grace) = grace {
                grace.wait().map_err(not_waited)?;
            }
        }
        Ok(())
    }

    /// The policy that named these applications holds now.
    pub(crate) fn switched(&mut self, named: Named) {
        self.current = named;
    }

    /// Takes away what the policy that holds does not name. Call it when no program works for the one before any more.
    pub(crate) fn clear_up(&mut self, shims: &mut Shims, grace: &Grace) -> Result<(), LoadError> {
        let stale: Vec<FileKey> =
            self.entries.keys().filter(|key| !self.current.classes.contains_key(key)).copied().collect();
        if stale.is_empty() {
            return Ok(());
        }
        let mut map = open(shims)?;
        for key in stale {
            match map.remove(&Record(key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
            self.entries.remove(&key);
        }
        // their memory is given to the next ones that are added
        grace.wait().map_err(not_waited)
    }
}

fn open(shims: &mut Shims) -> Result<Map<&mut MapData, Record<FileKey>, [u32; 2]>, LoadError> {
    let map = shims.ebpf().map_mut(NAME).ok_or(LoadError::ObjectLacks { name: NAME })?;
    map.try_into().map_err(failed)
}

fn failed(source: MapError) -> LoadError {
    LoadError::Map { name: NAME, source: Box::new(source) }
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

    fn named(classes: &[(u64, u32)]) -> Named {
        Named {
            classes: classes.iter().map(|&(file, class)| (key(file), class)).collect(),
            tested: classes.iter().map(|&(_, class)| class).collect(),
            ..Named::default()
        }
    }

    /// A map that serves the applications of generation 1 and then takes in those of generation 2.
    fn after(first: &[(u64, u32)], second: &[(u64, u32)]) -> Changes {
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
