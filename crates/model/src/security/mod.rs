//! Who may: security identifiers, security descriptors, and their text (SDDL).
//!
//! A condition on a user holds a [`SecurityDescriptor`]: it matches whom the descriptor's access control list grants
//! [`AccessRights::MATCH_FILTER`]. Users and groups of Linux have SIDs by the convention of Samba (see [`Sid`]), so that
//! `D:(A;;CC;;;S-1-22-1-1000)` is the user of uid 1000. Objects of the Base Filtering Engine have descriptors too.
//!
//! Audit lists (SACLs) have no part in any decision and are not held.

mod ace;
mod sddl;
mod sddl_names;
mod sid;

pub use ace::{AccessRights, Ace, AceFlags, AceKind};
pub use sddl::{SddlError, SddlProblem};
pub use sid::{Sid, SidError};

bitflags::bitflags! {
    /// How an access control list is inherited (`SECURITY_DESCRIPTOR_CONTROL`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct DaclFlags: u16 {
        /// Inheriting is asked for.
        const AUTO_INHERIT_REQ = 0x0100;
        /// It was inherited.
        const AUTO_INHERITED = 0x0400;
        /// It inherits nothing.
        const PROTECTED = 0x1000;
    }
}

/// A discretionary access control list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Dacl {
    /// How it is inherited.
    pub flags: DaclFlags,
    /// The entries in the order in which they are asked; none at all is a null list, which grants everything to everyone,
    /// whereas an empty list grants nothing to anyone.
    pub aces: Option<Vec<Ace>>,
}

/// A security descriptor. `Display` and `FromStr` write and read SDDL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct SecurityDescriptor {
    /// The owner.
    pub owner: Option<Sid>,
    /// The primary group.
    pub group: Option<Sid>,
    /// Who may what; without a list, everyone may everything.
    pub dacl: Option<Dacl>,
}

/// Whom an entry is about, as far as Linux knows them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everyone.
    Everyone,
    /// Whoever has that effective uid.
    Uid(u32),
    /// Whoever has that effective or supplementary gid.
    Gid(u32),
    /// Someone whom Linux does not know (a Windows account), or someone of whom a condition must hold besides. Nobody here
    /// can be shown to be it.
    Unmappable(Sid),
}

/// What an entry says about matching a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchEntry {
    /// Whether it grants or refuses.
    pub kind: AceKind,
    /// To whom.
    pub subject: Subject,
    /// Whether the right to match is among its rights; otherwise it says nothing about matching.
    pub grants_match: bool,
}

impl SecurityDescriptor {
    /// The descriptor that matches these and nobody else.
    pub fn matching(sids: impl IntoIterator<Item = Sid>) -> SecurityDescriptor {
        let ace = |sid| Ace::new(AceKind::Allow, AccessRights::MATCH_FILTER, sid);
        let aces = Some(sids.into_iter().map(ace).collect());
        SecurityDescriptor { dacl: Some(Dacl { flags: DaclFlags::empty(), aces }), ..Default::default() }
    }

    /// What the entries say about matching a filter, in the order in which they are asked.
    ///
    /// The first entry with `grants_match` whose subject is the caller decides; if there is none, the descriptor does
    /// not match. (MS docs: How DACLs control access to an object.) A descriptor without a list is one entry for everyone.
    /// Entries that are only there to be inherited are left out.
    pub fn match_entries(&self) -> impl Iterator<Item = MatchEntry> + '_ {
        let aces = self.dacl.as_ref().and_then(|dacl| dacl.aces.as_deref());
        let everyone = MatchEntry { kind: AceKind::Allow, subject: Subject::Everyone, grants_match: true };
        let without_list = aces.is_none().then_some(everyone);
        let applicable = aces
            .unwrap_or_default()
            .iter()
            .filter(|ace| !ace.flags.contains(AceFlags::INHERIT_ONLY))
            .map(|ace| MatchEntry { kind: ace.kind, subject: subject(ace), grants_match: ace.grants_match() });
        without_list.into_iter().chain(applicable)
    }
}

fn subject(ace: &Ace) -> Subject {
    let sid = &ace.sid;
    match (&ace.condition, sid.uid(), sid.gid()) {
        (Some(_), ..) => Subject::Unmappable(sid.clone()),
        (None, Some(uid), _) => Subject::Uid(uid),
        (None, _, Some(gid)) => Subject::Gid(gid),
        _ if *sid == Sid::everyone() => Subject::Everyone,
        _ => Subject::Unmappable(sid.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(sddl: &str) -> Vec<MatchEntry> {
        sddl.parse::<SecurityDescriptor>().unwrap().match_entries().collect()
    }

    fn entry(kind: AceKind, subject: Subject, grants_match: bool) -> MatchEntry {
        MatchEntry { kind, subject, grants_match }
    }

    #[test]
    fn what_entries_say_about_matching() {
        use AceKind::{Allow, Deny};
        let system = || Subject::Unmappable("S-1-5-18".parse().unwrap());
        let everyone = || Subject::Everyone;
        for (sddl, expected) in [
            ("D:(A;;CC;;;WD)", vec![entry(Allow, everyone(), true)]),
            ("D:(A;;0x1;;;S-1-22-1-1000)", vec![entry(Allow, Subject::Uid(1000), true)]),
            (
                "O:SYG:SYD:(D;;CC;;;S-1-22-2-27)(A;;CCRC;;;S-1-1-0)",
                vec![entry(Deny, Subject::Gid(27), true), entry(Allow, everyone(), true)],
            ),
            ("D:(A;;GA;;;WD)", vec![entry(Allow, everyone(), true)]),
            ("D:(A;;RC;;;WD)", vec![entry(Allow, everyone(), false)]),
            ("D:(A;;CC;;;SY)", vec![entry(Allow, system(), true)]),
            ("D:(A;IO;CC;;;WD)(A;NP;CC;;;SY)", vec![entry(Allow, system(), true)]),
            (
                r#"D:(XA;;CC;;;WD;(WIN://SYSAPPID Contains "x"))"#,
                vec![entry(Allow, Subject::Unmappable(Sid::everyone()), true)],
            ),
            ("D:", vec![]),
            ("O:SY", vec![entry(Allow, everyone(), true)]),
            ("D:NO_ACCESS_CONTROL", vec![entry(Allow, everyone(), true)]),
        ] {
            assert_eq!(entries(sddl), expected, "{sddl}");
        }
    }

    #[test]
    fn a_descriptor_for_some() {
        let descriptor = SecurityDescriptor::matching([Sid::from_uid(0), Sid::from_gid(100)]);
        assert_eq!(descriptor.to_string(), "D:(A;;CC;;;S-1-22-1-0)(A;;CC;;;S-1-22-2-100)");
        let subjects: Vec<_> = descriptor.match_entries().map(|entry| entry.subject).collect();
        assert_eq!(subjects, [Subject::Uid(0), Subject::Gid(100)]);
    }
}
