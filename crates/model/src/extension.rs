//! Ours: fields for what Linux has and the platform has not.
//!
//! They stand beside the public tables, never in them: [`Layer::fields`] holds the platform's fields,
//! [`Layer::extension_fields`] these. Their names begin with `LINUX_`, their keys are our own, and their numbers
//! ([`FieldId::get`]) follow those of the public fields.
//!
//! | field | holds | compared with |
//! | --- | --- | --- |
//! | [`LINUX_CGROUP`](FieldId::LINUX_CGROUP) | the path of the control group (cgroup v2) from the root of the hierarchy, `/system.slice/ssh.service` | EQUAL, NOT_EQUAL; PREFIX and NOT_PREFIX: the group and every one below it |
//! | [`LINUX_SYSTEMD_UNIT`](FieldId::LINUX_SYSTEMD_UNIT) | the unit of the system's service manager: [`unit_of`] that path | EQUAL, NOT_EQUAL |
//! | [`LINUX_CONTAINER`](FieldId::LINUX_CONTAINER) | the id or name of the container: [`container_of`] that path | EQUAL, NOT_EQUAL |
//! | [`LINUX_NETWORK_NAMESPACE`](FieldId::LINUX_NETWORK_NAMESPACE) | the inode number of the socket's network namespace | EQUAL, NOT_EQUAL |
//!
//! The first three are of whoever acts, like `ALE_APP_ID`, and stand at the ALE layers; a network namespace is the socket's, and
//! stands where `COMPARTMENT_ID` does. A process outside of every unit or container has an empty field there, which meets no
//! condition but that it be empty.

use crate::generated::fields::FIELDS;
use crate::{DataType, FieldId, FieldType, Layer, LayerField, MatchType};

const FIRST: u16 = FIELDS.len() as u16;

impl FieldId {
    /// The path of the control group of whoever acts.
    pub const LINUX_CGROUP: FieldId = FieldId(FIRST);
    /// The id or name of the container of whoever acts.
    pub const LINUX_CONTAINER: FieldId = FieldId(FIRST + 1);
    /// The inode number of the socket's network namespace.
    pub const LINUX_NETWORK_NAMESPACE: FieldId = FieldId(FIRST + 2);
    /// The systemd unit of whoever acts.
    pub const LINUX_SYSTEMD_UNIT: FieldId = FieldId(FIRST + 3);

    /// Whether the field is one of ours.
    pub const fn is_extension(self) -> bool {
        self.0 >= FIRST
    }
}

/// Names and keys, by number.
pub(crate) const EXTENSION_FIELDS: [(&str, u128); 4] = [
    ("LINUX_CGROUP", 0x9a48fa69_c03b_4e93_aa68_02a1abb153e8),
    ("LINUX_CONTAINER", 0xab8b606c_3e69_4adc_a7f0_d7f6a43a4d22),
    ("LINUX_NETWORK_NAMESPACE", 0x219c8ff0_976a_4cee_a9dd_6aceb0096dbe),
    ("LINUX_SYSTEMD_UNIT", 0xd89ad79b_8e7f_413a_a622_2eda18fd3474),
];

const fn raw(field: FieldId, data_type: DataType) -> LayerField {
    LayerField { field, field_type: FieldType::RawData, data_type }
}

/// Of whoever acts, then of his socket.
static ALL: [LayerField; 4] = [
    raw(FieldId::LINUX_CGROUP, DataType::UnicodeString),
    raw(FieldId::LINUX_SYSTEMD_UNIT, DataType::UnicodeString),
    raw(FieldId::LINUX_CONTAINER, DataType::UnicodeString),
    raw(FieldId::LINUX_NETWORK_NAMESPACE, DataType::Uint32),
];

impl Layer {
    /// The fields that are ours, which stand here beside those of the platform.
    pub fn extension_fields(&self) -> &'static [LayerField] {
        let has = |field| self.fields.iter().any(|public| public.field == field);
        let owner = self.name.starts_with("ALE_") && has(FieldId::ALE_APP_ID);
        match (owner, has(FieldId::COMPARTMENT_ID)) {
            (true, true) => &ALL,
            (true, false) => &ALL[..3],
            (false, true) => &ALL[3..],
            (false, false) => &[],
        }
    }

    /// The fields of the platform, then ours.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static LayerField> + Clone + use<> {
        self.fields.iter().chain(self.extension_fields())
    }
}

/// How a field of ours can be compared; `None` for a public one.
pub(crate) fn allows(field: FieldId, match_type: MatchType) -> Option<bool> {
    let equality = matches!(match_type, MatchType::Equal | MatchType::NotEqual);
    let below = matches!(match_type, MatchType::Prefix | MatchType::NotPrefix);
    field.is_extension().then_some(equality || below && field == FieldId::LINUX_CGROUP)
}

/// The most components that the path of a control group may have. Whoever is in a deeper group has an unreadable path.
pub const MOST_COMPONENTS: usize = 15;

/// The longest name of a control group, in bytes.
const NAME_BYTES: usize = 255;

/// What is wrong with a text that a field of ours is compared with.
///
/// The path of a control group begins with `/`, has no `/` at its end unless it is `/`, no empty component, neither `.` nor `..`, and
/// at most [`MOST_COMPONENTS`] of them. The names of units and containers are single components.
pub fn check(field: FieldId, text: &str) -> Result<(), &'static str> {
    match field {
        FieldId::LINUX_CGROUP => match text.strip_prefix('/') {
            Some("") => Ok(()),
            Some(_) if text.ends_with('/') => Err("leave out the `/` at the end"),
            Some(rest) if rest.split('/').count() > MOST_COMPONENTS => Err("deeper than 15 groups"),
            Some(rest) => rest.split('/').try_for_each(check_name),
            None => Err("the path of a control group begins with `/`, the root of the cgroup hierarchy"),
        },
        FieldId::LINUX_SYSTEMD_UNIT if text.ends_with(".slice") => {
            Err("a slice is no unit of a process: compare LINUX_CGROUP with its path, by prefix")
        }
        FieldId::LINUX_SYSTEMD_UNIT if !text.contains('.') => Err("a unit has a type, such as `ssh.service`"),
        FieldId::LINUX_SYSTEMD_UNIT | FieldId::LINUX_CONTAINER => check_name(text),
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("a name is empty"),
        "." | ".." => Err("`.` and `..` are no names"),
        _ if name.contains(['/', '\0', '\n']) => Err("a name holds no `/`, no line end and no zero byte"),
        _ if name.len() > NAME_BYTES => Err("a name is longer than 255 bytes"),
        _ => Ok(()),
    }
}

/// The unit of a control group, as systemd lays its groups out: the first name on the path that is not a slice, if it has a type.
///
/// Of what a user's own service manager starts that is `user@UID.service`: whose groups are delegated cannot pose as another unit.
pub fn unit_of(path: &str) -> Option<&str> {
    let name = components(path).find(|name| !name.ends_with(".slice"))?;
    name.contains('.').then(|| unescaped(name))
}

/// systemd puts `_` before names that mean something to the kernel.
fn unescaped(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

/// The names that the group of a unit can have, escaped or not.
pub fn unit_groups(unit: &str) -> [String; 2] {
    [unit.to_owned(), format!("_{unit}")]
}

/// What the groups of containers begin with, and end with.
const CONTAINER_GROUPS: [(&str, &str); 7] = [
    ("docker-", ".scope"),
    ("libpod-", ".scope"),
    ("crio-", ".scope"),
    ("cri-containerd-", ".scope"),
    ("lxc.payload.", ""),
    ("machine-", ".scope"),
    ("systemd-nspawn@", ".service"),
];

/// How long the id of a container is, which docker, podman and containerd also give to groups as a bare name.
pub const CONTAINER_ID_BYTES: usize = 64;

/// What the name of a container's group begins with, other than a bare id.
pub fn container_prefixes() -> impl Iterator<Item = &'static str> {
    CONTAINER_GROUPS.iter().map(|(prefix, _)| *prefix)
}

/// The container of a control group: of the first name on the path that is one of a container, the part that is its id or name.
///
/// Those are the groups of docker, podman, CRI-O, containerd, LXC, systemd's machines (libvirt's too) and systemd-nspawn, and any
/// name of 64 bytes. The outermost one counts: what is inside a container can make groups there, and cannot pose as another container.
pub fn container_of(path: &str) -> Option<&str> {
    components(path).find_map(|name| {
        let named = CONTAINER_GROUPS.iter().find_map(|(prefix, suffix)| {
            let rest = name.strip_prefix(prefix)?;
            Some(rest.strip_suffix(suffix).unwrap_or(rest))
        });
        named.or_else(|| (name.len() == CONTAINER_ID_BYTES).then_some(name))
    })
}

/// The names that the group of a container can have.
pub fn container_groups(container: &str) -> impl Iterator<Item = String> {
    let named = CONTAINER_GROUPS.iter().flat_map(move |(prefix, suffix)| {
        // without its ending too, as cgroup drivers other than systemd's have it
        let bare = (!suffix.is_empty()).then(|| format!("{prefix}{container}"));
        [Some(format!("{prefix}{container}{suffix}")), bare].into_iter().flatten()
    });
    named.chain((container.len() == CONTAINER_ID_BYTES).then(|| container.to_owned()))
}

/// The names on a path, from the root on.
pub fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// Whether a group is another or stands below it: what PREFIX means for paths of control groups.
pub fn is_at_or_below(path: &str, group: &str) -> bool {
    let group = group.trim_end_matches('/');
    path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7a1e0c1ff0e64fb5d7a1e0c1ff0e64fb5d7a1e0c1ff0e64fb5d7a1e0c1ff0e64";

    #[test]
    fn numbers_follow_the_public_ones() {
        let ours: Vec<&str> = FieldId::all().filter(|field| field.is_extension()).map(FieldId::name).collect();
        assert_eq!(ours, EXTENSION_FIELDS.map(|(name, _)| name));
        assert!(FieldId::all().take(FIELDS.len()).all(|field| !field.is_extension()));
        for layer in Layer::all() {
            assert!(layer.fields.iter().all(|field| !field.field.is_extension()), "{}", layer.name);
            assert!(layer.extension_fields().iter().all(|field| field.field.is_extension()), "{}", layer.name);
        }
    }

    #[test]
    fn where_they_stand() {
        let names = |layer: &str| -> Vec<&str> {
            Layer::find(layer).unwrap().extension_fields().iter().map(|field| field.field.name()).collect()
        };
        let all = ["LINUX_CGROUP", "LINUX_SYSTEMD_UNIT", "LINUX_CONTAINER", "LINUX_NETWORK_NAMESPACE"];
        for layer in ["ALE_AUTH_CONNECT_V4", "ALE_AUTH_RECV_ACCEPT_V6_DISCARD", "ALE_BIND_REDIRECT_V4"] {
            assert_eq!(names(layer), all, "{layer}");
        }
        assert_eq!(names("OUTBOUND_TRANSPORT_V4"), ["LINUX_NETWORK_NAMESPACE"]);
        assert!(names("RPC_UM").is_empty());
    }

    #[test]
    fn units_and_containers_of_paths() {
        let docker = format!("/system.slice/docker-{ID}.scope");
        let pod = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope/inner");
        let rootless = format!("/user.slice/user-7.slice/user@7.service/user.slice/libpod-{ID}.scope");
        let posing = format!("/lxc.payload.web/docker-{ID}.scope");
        let bare = format!("/docker/{ID}/init.scope");
        for (path, unit, container) in [
            ("/", None, None),
            ("/system.slice", None, None),
            ("/system.slice/ssh.service", Some("ssh.service"), None),
            ("/system.slice/_cpu.service", Some("cpu.service"), None),
            ("/user.slice/user-7.slice/user@7.service/app.slice/a.service", Some("user@7.service"), None),
            ("/init.scope", Some("init.scope"), None),
            ("/group/ssh.service", None, None),
            (&*docker, docker.strip_prefix("/system.slice/"), Some(ID)),
            (&*pod, pod.strip_suffix("/inner").and_then(|path| path.rsplit('/').next()), Some(ID)),
            (&*rootless, Some("user@7.service"), Some(ID)),
            (&*posing, Some("lxc.payload.web"), Some("web")),
            (&*bare, None, Some(ID)),
            ("/machine.slice/machine-deb.scope/payload", Some("machine-deb.scope"), Some("deb")),
            ("/machine.slice/systemd-nspawn@deb.service", Some("systemd-nspawn@deb.service"), Some("deb")),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
            assert_eq!(container_of(path), container, "{path}");
            if let Some(container) = container {
                let groups: Vec<String> = container_groups(container).collect();
                assert!(components(path).any(|name| groups.iter().any(|group| group == name)), "{path}");
            }
        }
    }

    #[test]
    fn below_ends_at_a_slash() {
        for (path, group, holds) in [
            ("/a/b", "/a", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/a", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(is_at_or_below(path, group), holds, "{path} {group}");
        }
    }

    #[test]
    fn texts_that_are_no_values() {
        for text in ["system.slice", "", "/a/", "/a//b", "/a/../b", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"] {
            assert!(check(FieldId::LINUX_CGROUP, text).is_err(), "{text}");
        }
        for text in ["/", "/a", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15"] {
            assert_eq!(check(FieldId::LINUX_CGROUP, text), Ok(()), "{text}");
        }
        for text in ["ssh", "system.slice", "", "a/b.service"] {
            assert!(check(FieldId::LINUX_SYSTEMD_UNIT, text).is_err(), "{text}");
        }
        assert!(check(FieldId::LINUX_CONTAINER, "a/b").is_err());
        assert_eq!(check(FieldId::LINUX_CONTAINER, "web"), Ok(()));
    }
}
