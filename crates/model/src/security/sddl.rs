//! Security descriptors as text (SDDL). Source: MS docs, Security descriptor string format; ACE strings.
//!
//! Understood are owner, group and the access control list with the entries `A`, `D`, `XA` and `XD`. Names are read in any
//! case, blanks between parts are passed over.

use std::fmt;
use std::str::FromStr;

use super::sddl_names::{ACE_FLAGS, DACL_FLAGS, DOMAIN_SIDS, NULL_ACL, RIGHT_SETS, RIGHTS, SIDS};
use super::{AccessRights, Ace, AceFlags, AceKind, Dacl, DaclFlags, SecurityDescriptor, Sid};
use crate::names::excerpt;

/// What is wrong with the text of a security descriptor, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the security descriptor is wrong at byte {at}: {problem}")]
pub struct SddlError {
    /// The offset in bytes, from 0.
    pub at: usize,
    /// What is wrong there.
    pub problem: SddlProblem,
}

/// What is wrong with the text of a security descriptor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SddlProblem {
    /// There is no part.
    #[error("it is empty: it needs at least a list, as in D:(A;;CC;;;WD)")]
    Empty,
    /// Something that is no part.
    #[error("a part begins with O:, G: or D:, and nothing may follow the last one")]
    NotAPart,
    /// A part stands twice.
    #[error("there are two parts {0}: leave one out")]
    Twice(char),
    /// A name or text of a SID that is unknown.
    #[error("`{0}` is no SID: write S-1-…, or a name such as WD for everyone")]
    Sid(String),
    /// A name of a SID that needs a Windows domain.
    #[error("`{0}` is relative to a Windows domain: write the whole SID")]
    DomainSid(String),
    /// A flag of the list that is unknown.
    #[error("`{0}` is no flag of a list: there are P, AR, AI and NO_ACCESS_CONTROL")]
    DaclFlag(String),
    /// Entries in a null list.
    #[error("NO_ACCESS_CONTROL grants everything to everyone, so entries cannot follow it")]
    EntriesOfNull,
    /// An audit list with entries.
    #[error("audit lists have no effect here: leave the part S: out")]
    AuditList,
    /// An entry does not end.
    #[error("the entry has no closing parenthesis")]
    Unclosed,
    /// An entry has the wrong number of fields.
    #[error("the entry has {0} fields: it has six, as in (A;;CC;;;WD), and conditional ones have seven")]
    Fields(usize),
    /// A kind of entry that is not understood.
    #[error("`{0}` is no kind of entry that is understood: there are A, D, and XA, XD with a condition")]
    Kind(String),
    /// A flag of an entry that is unknown.
    #[error("`{0}` is no flag of an entry: there are OI, CI, NP, IO, ID, SA and FA")]
    AceFlag(String),
    /// A right that is unknown.
    #[error("`{0}` is no right: write names such as CC, or a number such as 0x1")]
    Right(String),
    /// An object type.
    #[error("entries for one type of object are not understood: leave the type out")]
    ObjectType,
    /// A conditional entry without a condition, or one with a condition that does not allow for it.
    #[error("XA and XD have a condition in parentheses as the seventh field, A and D have none")]
    Condition,
}

impl FromStr for SecurityDescriptor {
    type Err = SddlError;

    fn from_str(text: &str) -> Result<SecurityDescriptor, SddlError> {
        let mut parser = Parser { text, at: 0 };
        let mut descriptor = SecurityDescriptor::default();
        let mut seen = String::new();
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Err(parser.error(SddlProblem::Empty));
        }
        while !parser.rest().is_empty() {
            let start = parser.at;
            let part = parser.part()?;
            if seen.contains(part) {
                return Err(SddlError { at: start, problem: SddlProblem::Twice(part) });
            }
            seen.push(part);
            match part {
                'O' => descriptor.owner = Some(parser.owner()?),
                'G' => descriptor.group = Some(parser.owner()?),
                'D' => descriptor.dacl = Some(parser.dacl()?),
                _ => parser.empty_sacl()?,
            }
            parser.skip_blanks();
        }
        Ok(descriptor)
    }
}

/// A place in the text.
struct Parser<'a> {
    text: &'a str,
    /// Always on the border of a character.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, problem: SddlProblem) -> SddlError {
        SddlError { at: self.at, problem }
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The letter of a part and its colon.
    fn part(&mut self) -> Result<char, SddlError> {
        let mut letters = self.rest().chars();
        match (letters.next().map(|letter| letter.to_ascii_uppercase()), letters.next()) {
            (Some(part @ ('O' | 'G' | 'D' | 'S')), Some(':')) => {
                self.at += 2;
                Ok(part)
            }
            _ => Err(self.error(SddlProblem::NotAPart)),
        }
    }

    /// A SID up to the next part, whose letter is the one before the next colon.
    fn owner(&mut self) -> Result<Sid, SddlError> {
        let rest = self.rest();
        let end = match rest.find(':') {
            Some(colon) => rest[..colon].char_indices().next_back().map_or(0, |(index, _)| index),
            None => rest.len(),
        };
        let sid = sid(&rest[..end]).map_err(|problem| self.error(problem))?;
        self.at += end;
        Ok(sid)
    }

    fn dacl(&mut self) -> Result<Dacl, SddlError> {
        let (flags, null) = self.acl_flags()?;
        let mut aces = Vec::new();
        loop {
            self.skip_blanks();
            match self.rest().starts_with('(') {
                true if null => return Err(self.error(SddlProblem::EntriesOfNull)),
                true => aces.push(self.ace()?),
                false => return Ok(Dacl { flags, aces: (!null).then_some(aces) }),
            }
        }
    }

    /// An audit list that audits nothing, which is as good as none.
    fn empty_sacl(&mut self) -> Result<(), SddlError> {
        self.acl_flags()?;
        self.skip_blanks();
        match self.rest().starts_with('(') {
            true => Err(self.error(SddlProblem::AuditList)),
            false => Ok(()),
        }
    }

    /// The flags of a list, and whether it is a null list.
    fn acl_flags(&mut self) -> Result<(DaclFlags, bool), SddlError> {
        let mut flags = DaclFlags::empty();
        let mut null = false;
        loop {
            self.skip_blanks();
            let rest = self.rest();
            let next_is_part = rest.chars().nth(1) == Some(':');
            if rest.is_empty() || rest.starts_with('(') || next_is_part {
                return Ok((flags, null));
            }
            if self.skip_name(NULL_ACL) {
                null = true;
                continue;
            }
            match DACL_FLAGS.iter().find(|(name, _)| self.skip_name(name)) {
                Some((_, bit)) => flags |= DaclFlags::from_bits_retain(*bit),
                None => return Err(self.error(SddlProblem::DaclFlag(excerpt(rest)))),
            }
        }
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.rest().get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
        if found {
            self.at += name.len();
        }
        found
    }

    fn ace(&mut self) -> Result<Ace, SddlError> {
        let start = self.at + 1;
        let fields = self.ace_fields()?;
        let wrong = |field: &Field<'_>, problem| SddlError { at: field.at, problem };
        let (kind, flags, rights, objects, trustee, condition) = match fields.as_slice() {
            [a, b, c, d, e, f] => (a, b, c, [d, e], f, None),
            [a, b, c, d, e, f, g] => (a, b, c, [d, e], f, Some(g)),
            _ => return Err(SddlError { at: start, problem: SddlProblem::Fields(fields.len()) }),
        };
        let (ace_kind, conditional) = match kind.text.to_ascii_uppercase().as_str() {
            "A" => (AceKind::Allow, false),
            "D" => (AceKind::Deny, false),
            "XA" => (AceKind::Allow, true),
            "XD" => (AceKind::Deny, true),
            _ => return Err(wrong(kind, SddlProblem::Kind(excerpt(kind.text)))),
        };
        if let Some(object) = objects.into_iter().find(|object| !object.text.is_empty()) {
            return Err(wrong(object, SddlProblem::ObjectType));
        }
        let condition = match (conditional, condition) {
            (false, None) => None,
            (true, Some(field)) if field.text.starts_with('(') => Some(field.text.to_owned()),
            (_, field) => return Err(wrong(field.unwrap_or(kind), SddlProblem::Condition)),
        };
        Ok(Ace {
            kind: ace_kind,
            flags: ace_flags(flags.text).map_err(|problem| wrong(flags, problem))?,
            rights: access_rights(rights.text).map_err(|problem| wrong(rights, problem))?,
            sid: sid(trustee.text).map_err(|problem| wrong(trustee, problem))?,
            condition,
        })
    }

    /// The fields of an entry, split at semicolons outside of quotes and of inner parentheses.
    fn ace_fields(&mut self) -> Result<Vec<Field<'a>>, SddlError> {
        let open = self.at;
        let (mut depth, mut quoted, mut start) = (0usize, false, open + 1);
        let mut fields = Vec::new();
        for (index, character) in self.rest().char_indices() {
            let at = open + index;
            match character {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            let ends = !quoted && (character == ';' && depth == 1 || character == ')' && depth == 0);
            if ends {
                fields.push(Field::new(self.text, start, at));
                start = at + 1;
            }
            if depth == 0 {
                self.at = start;
                return Ok(fields);
            }
        }
        Err(self.error(SddlProblem::Unclosed))
    }
}

/// A field of an entry.
struct Field<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Field<'a> {
    fn new(text: &'a str, start: usize, end: usize) -> Field<'a> {
        let field = &text[start..end];
        let at = end - field.trim_start().len();
        Field { text: field.trim(), at }
    }
}

fn sid(text: &str) -> Result<Sid, SddlProblem> {
    let text = text.trim();
    let named = SIDS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text));
    if let Some(sid) = named.and_then(|(_, authority, numbers)| Sid::new(*authority, numbers)) {
        return Ok(sid);
    }
    if DOMAIN_SIDS.iter().any(|name| name.eq_ignore_ascii_case(text)) {
        return Err(SddlProblem::DomainSid(text.to_owned()));
    }
    text.parse().map_err(|_| SddlProblem::Sid(excerpt(text)))
}

fn ace_flags(text: &str) -> Result<AceFlags, SddlProblem> {
    let flag = |name: &str| ACE_FLAGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    pairs(text).try_fold(AceFlags::empty(), |flags, name| match flag(name) {
        Some((_, bit)) => Ok(flags | AceFlags::from_bits_retain(*bit)),
        None => Err(SddlProblem::AceFlag(excerpt(name))),
    })
}

fn access_rights(text: &str) -> Result<AccessRights, SddlProblem> {
    let wrong = |text: &str| SddlProblem::Right(excerpt(text));
    let number = match text.get(..2) {
        Some("0x" | "0X") => Some((&text[2..], 16)),
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => Some((text, 10)),
        _ => None,
    };
    if let Some((digits, radix)) = number {
        let digits = if digits.starts_with('+') { "" } else { digits };
        let bits = u32::from_str_radix(digits, radix).map_err(|_| wrong(text))?;
        return Ok(AccessRights::from_bits_retain(bits));
    }
    let right = |name: &str| {
        let mut known = RIGHTS.iter().chain(&RIGHT_SETS);
        known.find(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    pairs(text).try_fold(AccessRights::empty(), |rights, name| match right(name) {
        Some((_, bits)) => Ok(rights | AccessRights::from_bits_retain(*bits)),
        None => Err(wrong(name)),
    })
}

/// The text in pieces of two bytes; a piece that would cut a character is the whole rest, which is no name.
fn pairs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_at_checked(2).unwrap_or((rest, ""));
        rest = tail;
        (!head.is_empty()).then_some(head)
    })
}

impl fmt::Display for SecurityDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(owner) = &self.owner {
            write!(f, "O:{}", SidText(owner))?;
        }
        if let Some(group) = &self.group {
            write!(f, "G:{}", SidText(group))?;
        }
        match &self.dacl {
            Some(dacl) => write_dacl(dacl, f),
            None => Ok(()),
        }
    }
}

fn write_dacl(dacl: &Dacl, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("D:")?;
    let set = DACL_FLAGS.iter().filter(|(_, bit)| dacl.flags.bits() & bit != 0);
    set.map(|(name, _)| name).try_for_each(|name| f.write_str(name))?;
    match &dacl.aces {
        Some(aces) => aces.iter().try_for_each(|ace| write_ace(ace, f)),
        None => f.write_str(NULL_ACL),
    }
}

fn write_ace(ace: &Ace, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let conditional = if ace.condition.is_some() { "X" } else { "" };
    let kind = if ace.kind == AceKind::Allow { "A" } else { "D" };
    write!(f, "({conditional}{kind};")?;
    let set = ACE_FLAGS.iter().filter(|(_, bit)| ace.flags.bits() & bit != 0);
    set.map(|(name, _)| name).try_for_each(|name| f.write_str(name))?;
    f.write_str(";")?;
    write_rights(ace.rights.bits(), f)?;
    write!(f, ";;;{}", SidText(&ace.sid))?;
    if let Some(condition) = &ace.condition {
        write!(f, ";{condition}")?;
    }
    f.write_str(")")
}

/// Names where every bit has one, otherwise a number.
fn write_rights(bits: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let named = RIGHTS.iter().fold(0, |all, (_, bit)| all | bit);
    if bits & !named != 0 {
        return write!(f, "{bits:#x}");
    }
    let set = RIGHTS.iter().filter(|(_, bit)| bits & bit != 0);
    set.map(|(name, _)| name).try_for_each(|name| f.write_str(name))
}

/// A SID by its short name, where it has one.
struct SidText<'a>(&'a Sid);

impl fmt::Display for SidText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = (self.0.authority(), self.0.numbers());
        match SIDS.iter().find(|(_, authority, numbers)| (*authority, *numbers) == key) {
            Some((name, ..)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
