//! What policies ask of this machine: users, groups, where paths lead, containers and network namespaces.

use openwfp_kernel::group::hierarchy;
use openwfp_model::{extension, policy_file::Resolver};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

/// This machine.
pub(crate) struct Machine;

impl Resolver for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        number(&entry("passwd", name)?, 2)
    }

    fn group(&self, name: &str) -> Option<u32> {
        number(&entry("group", name)?, 2)
    }

    fn canonicalize(&self, path: &str) -> Result<String, String> {
        let found = fs::canonicalize(path).map_err(|error| error.to_string())?;
        found.into_os_string().into_string().map_err(|_| "the path is not valid UTF-8".to_owned())
    }

    fn container(&self, text: &str) -> Result<String, String> {
        let is_part = text.len() < extension::CONTAINER_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_part || text.len() < SHORT_ID_BYTES {
            return Ok(text.to_owned());
        }
        let begins = |name: &String| name.len() == extension::CONTAINER_ID_BYTES && name.starts_with(text);
        let mut found: Vec<String> = containers().into_iter().filter(begins).collect();
        found.dedup();
        match <[String; 1]>::try_from(found) {
            Ok([container]) => Ok(container),
            Err(found) if found.is_empty() => Err(format!("no container has an id that begins with `{text}`")),
            Err(_) => Err(format!("several containers have ids that begin with `{text}`")),
        }
    }

    fn network_namespace(&self, text: &str) -> Result<u32, String> {
        let path = if text.contains('/') { PathBuf::from(text) } else { Path::new("/run/netns").join(text) };
        let unknown = |error: io::Error| format!("unknown network namespace `{text}`: {}: {error}", path.display());
        let own = fs::metadata("/proc/self/ns/net").map_err(unknown)?;
        let found = fs::metadata(&path).map_err(unknown)?;
        // namespaces of other kinds are in the same file system; a link of /proc says its kind
        let other_kind = fs::read_link(&path).is_ok_and(|link| !link.to_string_lossy().starts_with("net:"));
        if found.dev() != own.dev() || other_kind {
            return Err(format!("{} is no network namespace", path.display()));
        }
        u32::try_from(found.ino()).map_err(|_| format!("{} has a number that is no namespace's", path.display()))
    }
}

/// How much of a container's id people give at least.
const SHORT_ID_BYTES: usize = 12;

/// The ids and names of the containers that have a control group.
fn containers() -> Vec<String> {
    let mut found = vec![];
    let Ok(hierarchy) = hierarchy() else { return found };
    let mut folders = vec![hierarchy.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
        let below = folder.strip_prefix(&hierarchy).ok().and_then(Path::to_str).map(|below| format!("/{below}"));
        found.extend(below.as_deref().and_then(extension::container_of).map(str::to_owned));
    }
    found.sort();
    found.dedup();
    found
}

/// The name of a user.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let line = entry("passwd", &uid.to_string())?;
    line.split(':').next().map(str::to_owned)
}

/// The groups that a user is in: the user's own, and those that list the name.
pub(crate) fn groups_of(uid: u32) -> Vec<u32> {
    let Some(user) = entry("passwd", &uid.to_string()) else { return vec![] };
    let name = user.split(':').next().unwrap_or_default().to_owned();
    let mut groups: Vec<u32> = number(&user, 3).into_iter().collect();
    for line in fs::read_to_string("/etc/group").unwrap_or_default().lines() {
        let members = line.rsplit(':').next().unwrap_or_default();
        if members.split(',').any(|member| member == name) {
            groups.extend(number(line, 2));
        }
    }
    groups
}

/// The groups of this machine: those that somebody made for people or lists people in come first.
pub(crate) fn groups() -> Vec<u32> {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let of_people = |line: &str, gid: u32| gid >= 1000 || !line.ends_with(':');
    let all = text.lines().filter_map(|line| Some((!of_people(line, number(line, 2)?), number(line, 2)?)));
    let mut all: Vec<(bool, u32)> = all.collect();
    all.sort_by_key(|&(later, _)| later);
    all.into_iter().map(|(_, gid)| gid).collect()
}

/// The line about a user or group, by name or number. What `/etc` does not know, `getent` may (LDAP and the like).
fn entry(database: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let is_it = |line: &&str| {
        let mut parts = line.split(':');
        parts.next() == Some(name) || parts.nth(1) == Some(name)
    };
    if let Some(line) = text.lines().find(is_it) {
        return Some(line.to_owned());
    }
    let output = Command::new("getent").args([database, "--", name]).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

fn number(line: &str, place: usize) -> Option<u32> {
    line.split(':').nth(place)?.parse().ok()
}
