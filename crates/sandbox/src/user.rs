//! As whom the command runs.

use std::ffi::{CString, OsString};
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// What is wrong with the user that shall run the command.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no user `{0}`: name one of `getent passwd`, or a number with a group (`1234:1234`)")]
    UnknownUser(String),
    /// No such group.
    #[error("there is no group `{0}`: name one of `getent group`, or a number")]
    UnknownGroup(String),
    /// A number without an entry in the user database has no group of its own.
    #[error("user {0} is not in the user database, so its group is not known: name the group too (`{0}:GROUP`)")]
    NoGroup(u32),
    /// sudo sets both variables to numbers.
    #[error(
        "the environment variable {variable} is `{value}`, not a number as sudo sets it: unset it, or name the user with --user"
    )]
    Sudo {
        /// `SUDO_UID` or `SUDO_GID`.
        variable: &'static str,
        /// What it is set to.
        value: String,
    },
    /// The user database does not answer.
    #[error("cannot look up {what} in the user database: {source}")]
    Database {
        /// User or group.
        what: String,
        /// Why.
        source: nix::Error,
    },
}

/// Who calls, and what sudo says about it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) sudo_uid: Option<OsString>,
    pub(crate) sudo_gid: Option<OsString>,
}

impl Caller {
    pub(crate) fn of_this_process() -> std::io::Result<Self> {
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect(),
            sudo_uid: std::env::var_os("SUDO_UID"),
            sudo_gid: std::env::var_os("SUDO_GID"),
        })
    }
}

/// The user that runs the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunUser {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// Name, home and shell, if the user is in the user database.
    pub account: Option<Account>,
    /// Whether it is another user than the one who calls.
    pub changes: bool,
}

/// What the user database says of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The home folder.
    pub home: PathBuf,
    /// The shell.
    pub shell: PathBuf,
}

impl RunUser {
    /// `choice` is `NAME`, `UID`, and with `:GROUP` or `:GID` also a group other than the user's own. Without a choice: the user
    /// who called sudo if root calls (`SUDO_UID` of others proves nothing), else the caller as it is.
    ///
    /// Users and groups come from the system's user database (passwd, group, and whatever else nsswitch.conf names);
    /// supplementary groups are those of the user there, as at a login.
    pub(crate) fn find(choice: Option<&str>, caller: &Caller) -> Result<Self, UserError> {
        let (user, group) = match choice {
            Some(choice) => {
                let (user, group) = match choice.split_once(':') {
                    Some((user, group)) => (user, Some(group)),
                    None => (choice, None),
                };
                (Wanted::user(user)?, group.map(group_by_name_or_number).transpose()?)
            }
            None => match &caller.sudo_uid {
                Some(uid) if caller.uid == 0 => {
                    let gid = caller.sudo_gid.as_ref().map(|gid| number("SUDO_GID", gid)).transpose()?;
                    (Wanted::uid(number("SUDO_UID", uid)?)?, gid)
                }
                _ => return Ok(Self::caller(caller)),
            },
        };
        let gid = group.or(user.gid).ok_or(UserError::NoGroup(user.uid))?;
        if user.uid == caller.uid && gid == caller.gid && caller.uid != 0 {
            return Ok(Self { account: user.account, ..Self::caller(caller) });
        }
        let groups = match &user.account {
            Some(account) => supplementary(account, gid)?,
            None => vec![gid],
        };
        let changes = user.uid != caller.uid || gid != caller.gid || groups != caller.groups;
        Ok(Self { uid: user.uid, gid, groups, account: user.account, changes })
    }

    fn caller(caller: &Caller) -> Self {
        Self { uid: caller.uid, gid: caller.gid, groups: caller.groups.clone(), account: None, changes: false }
    }

    /// The environment variables that tell a command who it is, as sudo and su set them; none for the caller, whose
    /// environment is right already.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let Some(account) = self.account.as_ref().filter(|_| self.changes) else { return Vec::new() };
        vec![
            ("HOME".into(), account.home.clone().into()),
            ("SHELL".into(), account.shell.clone().into()),
            ("USER".into(), account.name.clone().into()),
            ("LOGNAME".into(), account.name.clone().into()),
        ]
    }
}

/// A user found, with its own group if it is in the database.
struct Wanted {
    uid: u32,
    gid: Option<u32>,
    account: Option<Account>,
}

impl Wanted {
    fn user(text: &str) -> Result<Self, UserError> {
        if let Some(entry) = lookup(text, User::from_name(text))? {
            return Ok(Self::entry(entry));
        }
        match valid_id(text) {
            Some(uid) => Self::uid(uid),
            None => Err(UserError::UnknownUser(text.to_owned())),
        }
    }

    fn uid(uid: u32) -> Result<Self, UserError> {
        let entry = lookup(&uid.to_string(), User::from_uid(Uid::from_raw(uid)))?;
        Ok(entry.map_or(Self { uid, gid: None, account: None }, Self::entry))
    }

    fn entry(entry: User) -> Self {
        let account = Account { name: entry.name, home: entry.dir, shell: entry.shell };
        Self { uid: entry.uid.as_raw(), gid: Some(entry.gid.as_raw()), account: Some(account) }
    }
}

fn group_by_name_or_number(text: &str) -> Result<u32, UserError> {
    match lookup(text, Group::from_name(text))? {
        Some(group) => Ok(group.gid.as_raw()),
        None => valid_id(text).ok_or_else(|| UserError::UnknownGroup(text.to_owned())),
    }
}

fn supplementary(account: &Account, gid: u32) -> Result<Vec<u32>, UserError> {
    let Ok(name) = CString::new(account.name.as_str()) else {
        return Err(UserError::UnknownUser(account.name.clone()));
    };
    let found = getgrouplist(&name, Gid::from_raw(gid));
    let groups =
        found.map_err(|source| UserError::Database { what: format!("the groups of {}", account.name), source })?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// An absent entry is `None`. Some sources of nsswitch.conf report "not found" as one of these errors (getpwnam(3)).
fn lookup<T>(what: &str, answer: nix::Result<Option<T>>) -> Result<Option<T>, UserError> {
    use nix::errno::Errno::{EBADF, ENOENT, EPERM, ESRCH};
    match answer {
        Ok(entry) => Ok(entry),
        Err(ENOENT | ESRCH | EBADF | EPERM) => Ok(None),
        Err(source) => Err(UserError::Database { what: format!("`{what}`"), source }),
    }
}

/// A user or group id; the greatest number means "leave as it is" to the kernel.
fn valid_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

fn number(variable: &'static str, value: &OsString) -> Result<u32, UserError> {
    let number = value.to_str().and_then(valid_id);
    number.ok_or_else(|| UserError::Sudo { variable, value: value.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, sudo: Option<(&str, &str)>) -> Caller {
        let (sudo_uid, sudo_gid) = sudo.map(|(uid, gid)| (uid.into(), gid.into())).unzip();
        Caller { uid, gid: uid, groups: vec![uid, 4711], sudo_uid, sudo_gid }
    }

    #[test]
    fn without_a_choice_the_caller_runs_it_with_its_groups() {
        for uid in [0, 1000] {
            let user = RunUser::find(None, &caller(uid, None)).unwrap();
            assert_eq!((user.uid, user.gid, user.changes), (uid, uid, false));
            assert_eq!(user.groups, [uid, 4711]);
            assert!(user.environment().is_empty());
        }
    }

    #[test]
    fn the_user_who_called_sudo_runs_it() {
        let user = RunUser::find(None, &caller(0, Some(("987654", "4242")))).unwrap();
        assert_eq!((user.uid, user.gid, user.changes), (987_654, 4242, true));
        assert_eq!(user.groups, [4242]);
    }

    #[test]
    fn what_sudo_said_counts_for_root_alone() {
        let user = RunUser::find(None, &caller(1000, Some(("0", "0")))).unwrap();
        assert_eq!((user.uid, user.changes), (1000, false));
    }

    #[test]
    fn variables_that_sudo_did_not_set_are_refused() {
        for sudo in [("alice", "1"), ("1", ""), ("-1", "1"), ("4294967295", "1")] {
            let error = RunUser::find(None, &caller(0, Some(sudo))).unwrap_err();
            assert!(matches!(error, UserError::Sudo { .. }), "{error}");
        }
    }

    #[test]
    fn a_user_can_be_named_in_every_way() {
        let root = caller(0, None);
        let named = RunUser::find(Some("nobody"), &root).unwrap();
        assert!(named.changes && named.uid != 0);
        assert!(named.environment().contains(&("USER".into(), "nobody".into())));
        assert_eq!(RunUser::find(Some(&named.uid.to_string()), &root).unwrap(), named);
        let other = RunUser::find(Some("nobody:root"), &root).unwrap();
        assert_eq!((other.uid, other.gid), (named.uid, 0));
        let numbers = RunUser::find(Some("987654:33"), &root).unwrap();
        assert_eq!((numbers.uid, numbers.gid, numbers.groups), (987_654, 33, vec![33]));
    }

    #[test]
    fn naming_the_caller_changes_nothing_for_a_user_and_resets_the_groups_for_root() {
        let user = RunUser::find(Some("1000:1000"), &caller(1000, None)).unwrap();
        assert!(!user.changes);
        let root = RunUser::find(Some("root"), &caller(0, None)).unwrap();
        assert!(root.changes && !root.groups.contains(&4711));
    }

    #[test]
    fn unknown_names_are_errors_that_say_what_to_write() {
        let root = caller(0, None);
        let text = |choice| RunUser::find(Some(choice), &root).unwrap_err().to_string();
        assert!(text("no-such-user").contains("getent passwd"));
        assert!(text("nobody:no-such-group").contains("getent group"));
        assert!(text("987654").contains("987654:GROUP"));
        assert!(text("").contains("no user"));
        assert!(text("4294967295").contains("no user"));
    }
}
