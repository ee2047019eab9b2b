//! What a person should know about valid policies: filters that cannot decide, or that decide otherwise than one would
//! think.

use crate::{filled, live::is_live, run::is_asked_at};
use openwfp_engine::{CompiledFilter, CompiledPolicy, Finding};
use openwfp_model::{
    Action, CalloutKind, FieldId, Filter, FilterCondition, FilterFlags, Guid, Layer, LayerId, MatchType, Value,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A finding about one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// What was found, for programs.
    pub kind: &'static str,
    /// The file that holds the filter.
    pub file: PathBuf,
    /// The filter's name.
    pub filter: String,
    /// Its layer.
    pub layer: LayerId,
    /// What was found, for people: the sentence that the filter begins.
    pub text: String,
}

/// Findings about the two halves of a family.
#[derive(Debug)]
pub(crate) struct Together<'a> {
    /// The first of them.
    pub first: &'a Note,
    /// The layer, or the family of both.
    pub layers: String,
}

/// Notes that differ in the version of IP alone become one, since people write families.
pub(crate) fn by_family(notes: &[Note]) -> Vec<Together<'_>> {
    let mut together: Vec<Together<'_>> = vec![];
    for note in notes {
        let same = |other: &&mut Together<'_>| {
            let first = other.first;
            (first.kind, &first.file, &first.filter, &first.text) == (note.kind, &note.file, &note.filter, &note.text)
                && first.layer != note.layer
                && family(first.layer) == family(note.layer)
        };
        match together.iter_mut().rev().find(same) {
            Some(other) => other.layers = family(note.layer).to_owned(),
            None => together.push(Together { first: note, layers: note.layer.name().to_owned() }),
        }
    }
    together
}

/// The findings about policies that were compiled together, from these files with so many filters each. Hosts answer for the
/// callouts with these keys.
pub(crate) fn notes(policy: &CompiledPolicy, files: &[(&Path, usize)], hosted: &[Guid]) -> Vec<Note> {
    let mut notes = vec![];
    let mut add = |filter: Option<&CompiledFilter>, kind: &'static str, text: String| {
        if let Some(filter) = filter {
            let file = file_of(filter.id, files).to_owned();
            notes.push(Note { kind, file, filter: filter.filter.name.clone(), layer: filter.filter.layer, text });
        }
    };
    for finding in policy.findings() {
        let (filter, kind, text) = of_finding(policy, &finding);
        add(policy.filter(filter), kind, text);
    }
    for filter in policy.filters().iter().filter(|filter| !filter.is_disabled()) {
        for (kind, text) in of_filter(&filter.filter, hosted) {
            add(Some(filter), kind, text);
        }
    }
    notes
}

/// A layer with filters at which `wfp run` does not classify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerNote {
    /// The layer.
    pub layer: LayerId,
    /// The file that holds the first of the filters.
    pub file: PathBuf,
    /// The name of that filter.
    pub first: String,
    /// How many filters stand there.
    pub filters: usize,
    /// Where the layer is met: `replay`, or nowhere.
    pub met: Vec<&'static str>,
}

impl LayerNote {
    /// What that means, for people: the sentence that the layer begins.
    pub fn text(&self) -> &'static str {
        match self.met.is_empty() {
            true => "is not met live, nor by `wfp replay`: only `wfp explain` asks its filters",
            false => "is not met live: `wfp replay` asks its filters, and `wfp run` does not",
        }
    }
}

/// The layers of policies at which `wfp run` does not classify.
pub(crate) fn layers_not_live(policy: &CompiledPolicy, files: &[(&Path, usize)]) -> Vec<LayerNote> {
    let layers = Layer::all().iter().filter(|layer| !is_live(layer.id));
    let notes = layers.filter_map(|layer| {
        let all = policy.filters().iter().filter(|filter| !filter.is_disabled() && filter.filter.layer == layer.id);
        let first = all.clone().min_by_key(|filter| filter.id)?;
        let (file, name) = (file_of(first.id, files).to_owned(), first.filter.name.clone());
        Some(LayerNote { layer: layer.id, file, first: name, filters: all.count(), met: filled::layer(layer) })
    });
    notes.collect()
}

/// The name of the family of a layer.
pub(crate) fn family(layer: LayerId) -> &'static str {
    layer.name().trim_end_matches("_V4").trim_end_matches("_V6")
}

/// Filters are numbered from 1 through all files.
fn file_of<'a>(filter: u64, files: &[(&'a Path, usize)]) -> &'a Path {
    let mut last = 0;
    let is_it = |(_, count): &&(&Path, usize)| {
        last += *count as u64;
        filter <= last
    };
    files.iter().find(is_it).map_or(Path::new(""), |(path, _)| path)
}

fn of_finding(policy: &CompiledPolicy, finding: &Finding) -> (u64, &'static str, String) {
    match finding {
        Finding::NeverMatches { filter } => {
            (*filter, "never-matches", "can never decide: its conditions cannot hold together".to_owned())
        }
        Finding::Shadowed { filter, by } => {
            let by = policy.filter(*by).map_or("", |by| by.filter.name.as_str());
            (*filter, "shadowed", format!("can never decide: \"{by}\" answers first for all that it matches"))
        }
        Finding::Late { filter, fields } => {
            let text = format!(
                "tests {}: it decides when the first packet leaves, so the call is not refused, and the connection ended \
                 instead",
                not_known_yet(fields)
            );
            (*filter, "late", text)
        }
        Finding::Disabled { filter } => {
            (*filter, "disabled", "is disabled: it is left out, and decides nothing".to_owned())
        }
    }
}

/// Fields of which nothing is known at connect, with the bind that makes them known.
fn not_known_yet(fields: &[FieldId]) -> String {
    let (mut port, mut address, mut device) = (vec![], vec![], vec![]);
    for field in fields {
        match *field {
            FieldId::IP_LOCAL_PORT => port.push(field.name()),
            FieldId::IP_LOCAL_ADDRESS | FieldId::IP_LOCAL_ADDRESS_TYPE => address.push(field.name()),
            _ => device.push(field.name()),
        }
    }
    let binds = [(port, "a port"), (address, "an address"), (device, "a device (SO_BINDTODEVICE)")];
    let told = binds
        .iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, to)| format!("{}, not known at connect unless the socket is bound to {to}", names.join(" and ")));
    told.collect::<Vec<_>>().join("; and ")
}

fn of_filter(filter: &Filter, hosted: &[Guid]) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    if let Action::Callout { callout, kind } = filter.action
        && !(hosted.contains(&callout) && is_asked_at(filter.layer))
    {
        let does = match kind {
            CalloutKind::Inspection => "it is passed over",
            _ if filter.flags.contains(FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED) => "it permits",
            _ => "it blocks",
        };
        found.push((
            "callout-unregistered",
            match hosted.contains(&callout) {
                true => format!("names a callout at a layer where hosts are not asked: in `wfp run` {does}"),
                false => format!("names a callout that nobody has registered: {does}"),
            },
        ));
    }
    if filter.errno.is_some() && !returns_errno(filter.layer) {
        let text = "has an errno, which no call returns there: only a refused bind or connect returns one";
        found.push(("errno", text.to_owned()));
    }
    if let Some(errno) = filter.errno.filter(|errno| errno.invites_to_go_on()) {
        let text = format!(
            "returns {errno}, which does not tell programs that they were refused: they may wait, or try for ever"
        );
        found.push(("errno", text));
    }
    found.extend(not_live(filter).map(|text| ("not-live", text)));
    found.extend(of_errors(filter.layer).map(|text| ("icmp-errors", text.to_owned())));
    let part = |condition: &&FilterCondition| {
        let by_path = [MatchType::Equal, MatchType::NotEqual].contains(&condition.match_type);
        [FieldId::ALE_APP_ID, FieldId::ALE_ORIGINAL_APP_ID].contains(&condition.field) && !by_path
    };
    if let Some(condition) = filter.conditions.iter().find(part) {
        let text = format!(
            "compares {} otherwise than with one whole path: `wfp run` refuses the policy, for the kernel knows a \
             program as one file",
            condition.field
        );
        found.push(("not-live", text));
    }
    for condition in &filter.conditions {
        if let (FieldId::ALE_APP_ID, Value::Application(path)) = (condition.field, &condition.value)
            && let Some((who, what)) = writable(Path::new(path))
        {
            let text = format!(
                "is about {path}, and {who} may change {}: who can, can make it another program",
                what.display()
            );
            found.push(("application-writable", text));
        }
    }
    found
}

/// What a filter tests that live traffic does not have yet, although its layer is met.
pub(crate) fn not_live(filter: &Filter) -> Option<String> {
    if !is_live(filter.layer) {
        return None;
    }
    let live = |field: FieldId| filled::field(filter.layer, field).iter().any(|where_| *where_ != "replay");
    let mut names: Vec<&str> = filter
        .conditions
        .iter()
        .map(|condition| condition.field)
        .filter(|&field| !live(field))
        .map(FieldId::name)
        .collect();
    names.dedup();
    let text = format!(
        "tests {}, which `wfp run` does not know there: the condition never holds, or blocks as unreadable",
        names.join(" and ")
    );
    (!names.is_empty()).then_some(text)
}

/// Which ICMP errors a layer of them meets in `wfp run`: not all, and few that matter.
pub(crate) fn of_errors(layer: LayerId) -> Option<&'static str> {
    let name = layer.name();
    if name.starts_with("INBOUND_ICMP_ERROR") {
        Some(
            "meets in `wfp run` only the errors that the command's own raw ICMP sockets read: an error about a packet of TCP or UDP is \
             handed to no socket, so the filter does not decide about it",
        )
    } else if name.starts_with("OUTBOUND_ICMP_ERROR") {
        Some(
            "meets in `wfp run` only the errors that the command's own raw ICMP sockets send: an error with which the kernel answers \
             comes from no socket, so the filter does not decide about it",
        )
    } else {
        None
    }
}

fn returns_errno(layer: LayerId) -> bool {
    matches!(
        layer,
        LayerId::ALE_RESOURCE_ASSIGNMENT_V4
            | LayerId::ALE_RESOURCE_ASSIGNMENT_V6
            | LayerId::ALE_AUTH_CONNECT_V4
            | LayerId::ALE_AUTH_CONNECT_V6
            | LayerId::ALE_BIND_REDIRECT_V4
            | LayerId::ALE_BIND_REDIRECT_V6
            | LayerId::ALE_CONNECT_REDIRECT_V4
            | LayerId::ALE_CONNECT_REDIRECT_V6
    )
}

/// Who besides root may write a program's file, or its folder and so replace it.
fn writable(path: &Path) -> Option<(String, &Path)> {
    [Some(path), path.parent()].into_iter().flatten().find_map(|path| {
        let data = fs::metadata(path).ok()?;
        let mode = data.permissions().mode();
        // in a folder with the sticky bit others cannot replace the file
        let sticky = data.is_dir() && mode & 0o1000 != 0;
        let who = match () {
            // an owner can give itself the right to write
            () if data.uid() != 0 => match crate::machine::user_name(data.uid()) {
                Some(name) => format!("the user {name}"),
                None => format!("the user {}", data.uid()),
            },
            () if mode & 0o002 != 0 && !sticky => "everyone".to_owned(),
            () if mode & 0o020 != 0 && data.gid() != 0 && !sticky => format!("the group {}", data.gid()),
            () => return None,
        };
        Some((who, path))
    })
}
