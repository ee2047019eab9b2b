//! Access control entries.

use crate::Sid;

bitflags::bitflags! {
    /// Rights in an access mask. The low bits mean one thing on conditions of filters and another on objects.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct AccessRights: u32 {
        /// On a condition: the filter matches (`FWP_ACTRL_MATCH_FILTER`).
        const MATCH_FILTER = 0x0001;
        /// On an object: add objects to it (`FWPM_ACTRL_ADD`).
        const ADD = 0x0001;
        /// On an object: let other objects refer to it (`FWPM_ACTRL_ADD_LINK`).
        const ADD_LINK = 0x0002;
        /// On the engine: begin a read-only transaction (`FWPM_ACTRL_BEGIN_READ_TXN`).
        const BEGIN_READ_TXN = 0x0004;
        /// On the engine: begin a read/write transaction (`FWPM_ACTRL_BEGIN_WRITE_TXN`).
        const BEGIN_WRITE_TXN = 0x0008;
        /// On a layer: classify (`FWPM_ACTRL_CLASSIFY`).
        const CLASSIFY = 0x0010;
        /// On a container: enumerate its objects (`FWPM_ACTRL_ENUM`).
        const ENUM = 0x0020;
        /// On the engine: open a session (`FWPM_ACTRL_OPEN`).
        const OPEN = 0x0040;
        /// On an object: read it (`FWPM_ACTRL_READ`).
        const READ = 0x0080;
        /// On the engine: read its statistics (`FWPM_ACTRL_READ_STATS`).
        const READ_STATS = 0x0100;
        /// On a container: subscribe to changes (`FWPM_ACTRL_SUBSCRIBE`).
        const SUBSCRIBE = 0x0200;
        /// On the engine: change its options (`FWPM_ACTRL_WRITE`).
        const WRITE = 0x0400;
        /// Delete the object.
        const DELETE = 0x0001_0000;
        /// Read the security descriptor.
        const READ_CONTROL = 0x0002_0000;
        /// Change the access control list.
        const WRITE_DAC = 0x0004_0000;
        /// Change the owner.
        const WRITE_OWNER = 0x0008_0000;
        /// Every right there is.
        const GENERIC_ALL = 0x1000_0000;
        /// The rights that executing takes.
        const GENERIC_EXECUTE = 0x2000_0000;
        /// The rights that writing takes.
        const GENERIC_WRITE = 0x4000_0000;
        /// The rights that reading takes.
        const GENERIC_READ = 0x8000_0000;

        // Bits without a meaning here are kept.
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// How an entry is inherited and audited (`ACE_HEADER`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct AceFlags: u8 {
        /// Objects in the container inherit it.
        const OBJECT_INHERIT = 0x01;
        /// Containers in the container inherit it.
        const CONTAINER_INHERIT = 0x02;
        /// It is inherited once.
        const NO_PROPAGATE_INHERIT = 0x04;
        /// It holds for those who inherit it, not for the object itself.
        const INHERIT_ONLY = 0x08;
        /// It was inherited.
        const INHERITED = 0x10;
        /// Success is audited.
        const SUCCESSFUL_ACCESS = 0x40;
        /// Failure is audited.
        const FAILED_ACCESS = 0x80;
    }
}

/// Whether an entry grants or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AceKind {
    /// Grants its rights.
    Allow,
    /// Refuses its rights.
    Deny,
}

/// An access control entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ace {
    /// Whether it grants or refuses.
    pub kind: AceKind,
    /// How it is inherited.
    pub flags: AceFlags,
    /// Which rights.
    pub rights: AccessRights,
    /// To whom.
    pub sid: Sid,
    /// A conditional entry's expression, as in SDDL with its parentheses. It is kept, not understood.
    pub condition: Option<String>,
}

impl Ace {
    /// An entry without flags and condition.
    pub fn new(kind: AceKind, rights: AccessRights, sid: Sid) -> Ace {
        Ace { kind, flags: AceFlags::empty(), rights, sid, condition: None }
    }

    /// Whether its rights hold the one to match a filter.
    pub(super) fn grants_match(&self) -> bool {
        self.rights.intersects(AccessRights::MATCH_FILTER | AccessRights::GENERIC_ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::numbers::NUMBERS;

    #[test]
    fn rights_have_the_public_numbers() {
        let public: Vec<_> =
            NUMBERS.iter().filter_map(|(name, number)| Some((name.split_once("_ACTRL_")?.1, *number))).collect();
        assert_eq!(public.len(), 12);
        for (name, number) in public {
            let ours = AccessRights::from_name(name).map(|rights| rights.bits());
            assert_eq!(ours, Some(number), "{name}");
        }
    }
}
