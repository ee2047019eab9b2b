//! What policies ask of this machine: users, groups, and where paths lead.

use openwfp_model::policy_file::Resolver;
use std::{fs, process::Command};

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
