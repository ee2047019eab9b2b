//! What a field is compared with: the value that a scalar of the file stands for, by the kind of the field.

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::{DataType, FieldId, FieldType, IpVersion, LayerField, SecurityDescriptor, Sid, Value};

use super::addresses;
use super::diagnostic::Diagnostic;
use super::named_numbers::NamedNumbers;
use super::reader::{Reader, parse_number};
use super::tree::{Node, Table, Tree};

/// What a scalar stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operand {
    /// The version of IP that it belongs to, for an address.
    pub version: Option<IpVersion>,
    pub shape: Shape,
}

/// One value, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One(Value),
    Range(Value, Value),
}

/// How the values of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Address,
    Number,
    Flags,
    Mac,
    Guid,
    Application,
    Bytes,
    Sid,
    User,
    Text,
    /// The text of a field of ours.
    Linux,
    /// A network namespace: its number, or what leads to it.
    Namespace,
}

/// The field of a condition, with what its values need to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub field: LayerField,
    pub kind: Kind,
    pub named: Option<NamedNumbers>,
}

impl Subject {
    /// `written` is the name by which the file calls the field: the numbers of ICMP have no services.
    pub fn new(field: LayerField, written: &str) -> Subject {
        let icmp = crate::names::without_prefix(written, "FWPM_CONDITION_")
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("ICMP_"));
        Subject { field, kind: kind(&field), named: NamedNumbers::of(field.field).filter(|_| !icmp) }
    }

    fn name(&self) -> &'static str {
        self.field.field.name()
    }

    /// The type of the field's numbers; that of an address is IPv4, wherever it is read.
    fn number_type(&self) -> DataType {
        if self.kind == Kind::Address { DataType::Uint32 } else { self.field.data_type }
    }

    /// The largest number that the field holds.
    pub fn max(&self) -> u64 {
        match self.number_type().integer_bits() {
            Some(bits @ 0..64) => (1 << bits) - 1,
            _ => u64::MAX,
        }
    }

    /// A number, which must not be above `max`, as a value of the field's type.
    pub fn number(&self, number: u64) -> Value {
        match self.number_type() {
            DataType::Uint8 => Value::Uint8(number as u8),
            DataType::Uint16 => Value::Uint16(number as u16),
            DataType::Uint32 => Value::Uint32(number as u32),
            _ => Value::Uint64(number),
        }
    }

    /// What a value of the field looks like, for messages.
    fn expected(&self) -> String {
        match self.kind {
            Kind::Address => "an address as a string, such as \"192.0.2.1\", \"10.0.0.0/8\" or \"::1-::f\"".to_owned(),
            Kind::Number => match self.named {
                Some(named) => format!(
                    "a number from 0 to {}, a range such as \"1-9\", or the name of a {}",
                    self.max(),
                    named.what
                ),
                None => format!("a number from 0 to {}, or a range such as \"1-9\"", self.max()),
            },
            Kind::Flags => "a table such as `{ any = [\"NAME\"] }`, `{ all = … }` or `{ none = … }`".to_owned(),
            Kind::Mac => "a hardware address as a string, such as \"00:00:5e:00:53:01\"".to_owned(),
            Kind::Guid => "a GUID as a string".to_owned(),
            Kind::Application => "the absolute path of an executable as a string".to_owned(),
            Kind::Bytes => "text as a string, or `{ hex = \"…\" }`".to_owned(),
            Kind::Sid => "a SID as a string, such as \"S-1-5-32-545\"".to_owned(),
            Kind::User => "the name or number of a user, `{ group = … }`, or a security descriptor in SDDL".to_owned(),
            Kind::Text => "a string".to_owned(),
            Kind::Linux => match self.field.field {
                FieldId::LINUX_CGROUP => {
                    "the path of a control group as a string, such as \"/system.slice\"".to_owned()
                }
                FieldId::LINUX_SYSTEMD_UNIT => "the name of a unit as a string, such as \"ssh.service\"".to_owned(),
                _ => "the id or name of a container as a string".to_owned(),
            },
            Kind::Namespace => "the name of a network namespace, its file, or its inode number".to_owned(),
        }
    }
}

fn kind(field: &LayerField) -> Kind {
    match (field.field_type, field.data_type) {
        _ if field.field == FieldId::LINUX_NETWORK_NAMESPACE => Kind::Namespace,
        _ if field.field.is_extension() => Kind::Linux,
        (FieldType::IpAddress, _) => Kind::Address,
        (FieldType::Flags, _) => Kind::Flags,
        (_, DataType::ByteArray6) => Kind::Mac,
        (_, DataType::ByteArray16) => Kind::Guid,
        (_, DataType::ByteBlob) => match field.field {
            FieldId::ALE_APP_ID | FieldId::ALE_ORIGINAL_APP_ID => Kind::Application,
            _ => Kind::Bytes,
        },
        (_, DataType::Sid) => Kind::Sid,
        (_, DataType::SecurityDescriptor | DataType::TokenInformation | DataType::TokenAccessInformation) => Kind::User,
        (_, DataType::UnicodeString) => Kind::Text,
        _ => Kind::Number,
    }
}

/// The keys of a table that stands for a value.
pub(super) const OPERAND_KEYS: [&str; 5] = ["user", "group", "application", "text", "hex"];

impl Reader<'_> {
    /// The operand of a value that is not a test: a scalar, or a table such as `{ group = … }`.
    pub fn operand(&mut self, subject: &Subject, node: &Node) -> Option<Operand> {
        match &node.value {
            Tree::Table(table) => {
                let value = self.operand_table(subject, node, table)?;
                Some(Operand { version: None, shape: Shape::One(value) })
            }
            Tree::Integer(number) => self.integer_operand(subject, node, *number),
            Tree::Text(text) => self.text_operand(subject, node, text),
            _ => self.wrong_operand(subject, node),
        }
    }

    fn wrong_operand<T>(&mut self, subject: &Subject, node: &Node) -> Option<T> {
        self.wrong_kind(node, &format!("`{}`", subject.name()), &subject.expected())
    }

    fn integer_operand(&mut self, subject: &Subject, node: &Node, number: i128) -> Option<Operand> {
        let value = match subject.kind {
            Kind::Number | Kind::Flags | Kind::Namespace => match u64::try_from(number) {
                Ok(number) if number <= subject.max() => subject.number(number),
                _ => return self.too_large(subject, node, &number.to_string()),
            },
            Kind::User | Kind::Sid => match u32::try_from(number) {
                Ok(uid) => Value::User(uid),
                Err(_) => return self.fail(Diagnostic::error(node.span, "invalid user", "a uid has 32 bits")),
            },
            _ => return self.wrong_operand(subject, node),
        };
        Some(Operand { version: None, shape: Shape::One(value) })
    }

    fn too_large<T>(&mut self, subject: &Subject, node: &Node, number: &str) -> Option<T> {
        let label = format!("`{}` holds numbers from 0 to {}", subject.name(), subject.max());
        self.fail(Diagnostic::error(node.span, format!("{number} is out of range"), label))
    }

    fn text_operand(&mut self, subject: &Subject, node: &Node, text: &str) -> Option<Operand> {
        let value = match subject.kind {
            Kind::Address => match addresses::parse(text, node.span) {
                Ok(operand) => return Some(operand),
                Err(error) => return self.fail(error),
            },
            Kind::Number => return self.number_text(subject, node, text),
            Kind::Flags => return self.flag_alone(subject, node, text),
            Kind::Mac => match mac(text) {
                Some(address) => Value::ByteArray6(address),
                None => {
                    let label = "expected six bytes such as `00:00:5e:00:53:01`";
                    return self.fail(Diagnostic::error(node.span, "not a hardware address", label));
                }
            },
            Kind::Guid => match text.parse::<crate::Guid>() {
                Ok(guid) => Value::ByteArray16(guid.as_u128().to_be_bytes()),
                Err(_) => return self.fail(super::reader::not_a_guid(node.span)),
            },
            Kind::Application => self.application(node, text)?,
            Kind::Bytes | Kind::Text => self.blob_text(node, text)?,
            Kind::Linux => self.linux(subject.field.field, node, text)?,
            Kind::Namespace => self.namespace(node, text)?,
            Kind::Sid => match text.parse::<Sid>() {
                Ok(sid) => Value::Sid(sid),
                Err(_) if !text.starts_with("S-") && subject.field.field == FieldId::ALE_USER_ID => {
                    Value::User(self.user(node, text)?)
                }
                Err(error) => return self.fail(Diagnostic::error(node.span, "not a SID", error.to_string())),
            },
            Kind::User => self.user_text(node, text)?,
        };
        Some(Operand { version: None, shape: Shape::One(value) })
    }

    /// A number, a name, or a range of either. Names hold hyphens too, so every hyphen may be the one of the range.
    fn number_text(&mut self, subject: &Subject, node: &Node, text: &str) -> Option<Operand> {
        let number = |text: &str| {
            let text = text.trim();
            parse_number(text).or_else(|| Some(subject.named?.number(text)?.into()))
        };
        let max = u128::from(subject.max());
        let value = |number: u128| subject.number(number as u64);
        let shape = match number(text) {
            Some(number) if number > max => return self.too_large(subject, node, text),
            Some(number) => Shape::One(value(number)),
            None => {
                let hyphens = text.match_indices('-').map(|(at, _)| (&text[..at], &text[at + 1..]));
                let Some((low, high)) = hyphens.filter_map(|(low, high)| Some((number(low)?, number(high)?))).next()
                else {
                    return self.not_a_number(subject, node, text);
                };
                if low > high {
                    let error = Diagnostic::error(node.span, "range upside down", format!("{low} is above {high}"));
                    return self.fail(error.help(format!("write `{high}-{low}`")));
                }
                if high > max {
                    return self.too_large(subject, node, &high.to_string());
                }
                Shape::Range(value(low), value(high))
            }
        };
        Some(Operand { version: None, shape })
    }

    fn not_a_number<T>(&mut self, subject: &Subject, node: &Node, text: &str) -> Option<T> {
        let number_like = text.starts_with(|letter: char| letter.is_ascii_digit() || "-+".contains(letter));
        let Some(named) = subject.named.filter(|_| !number_like) else {
            let title = format!("`{text}` is not a number");
            return self.fail(Diagnostic::error(node.span, title, format!("expected {}", subject.expected())));
        };
        let title = format!("unknown {} `{text}`", named.what);
        let error = Diagnostic::error(node.span, title, format!("no {} of this name is known", named.what));
        let error = match named.nearest(text) {
            Some(nearest) => error.did_you_mean(Some(nearest)),
            None => error.help("numbers are right too"),
        };
        self.fail(error)
    }

    /// A flag that stands alone could mean that it is set, or that nothing else is.
    fn flag_alone<T>(&mut self, subject: &Subject, node: &Node, text: &str) -> Option<T> {
        if let Some(number) = parse_number(text) {
            let error =
                Diagnostic::error(node.span, format!("`{}` cannot be a string", subject.name()), "this is a number");
            return self.fail(error.help(format!("write {number} without quotes to test all bits for equality")));
        }
        let label = "does it have to be set, clear, or the only one?";
        let error = Diagnostic::error(node.span, "a flag without a test", label);
        self.fail(
            error.help(format!("write `{{ all = [\"{text}\"] }}` for set, `{{ none = [\"{text}\"] }}` for clear")),
        )
    }

    fn application(&mut self, node: &Node, text: &str) -> Option<Value> {
        let problem = match text {
            _ if !text.starts_with('/') => "the path of an application is absolute",
            _ if text.contains('\0') => "a path holds no zero byte",
            _ => {
                return Some(match self.resolver.canonicalize(text) {
                    Ok(path) => Value::Application(path),
                    Err(reason) => {
                        let title = format!("`{text}` cannot be resolved: {reason}");
                        let label = "kept as it is written: nothing matches until this path leads to a file";
                        self.report(Diagnostic::warning(node.span, title, label));
                        Value::Application(text.to_owned())
                    }
                });
            }
        };
        self.fail(Diagnostic::error(node.span, "not the path of an application", problem))
    }

    /// A text of a field of ours, whose form the condition's own check sees to. A part of a container's id stands for the container
    /// that there is.
    fn linux(&mut self, field: FieldId, node: &Node, text: &str) -> Option<Value> {
        if field != FieldId::LINUX_CONTAINER {
            return Some(Value::UnicodeString(text.to_owned()));
        }
        Some(Value::UnicodeString(match self.resolver.container(text) {
            Ok(container) => container,
            Err(reason) => {
                let label = "kept as it is written: nothing matches until a container has this id or name";
                self.report(Diagnostic::warning(node.span, reason, label));
                text.to_owned()
            }
        }))
    }

    fn namespace(&mut self, node: &Node, text: &str) -> Option<Value> {
        let number = parse_number(text).and_then(|number| number.try_into().ok());
        match number.map_or_else(|| self.resolver.network_namespace(text), Ok) {
            Ok(inode) => Some(Value::Uint32(inode)),
            Err(reason) => {
                let label = "expected a name under /run/netns, a file such as /proc/PID/ns/net, or an inode number";
                self.fail(Diagnostic::error(node.span, reason, label))
            }
        }
    }

    fn user_text(&mut self, node: &Node, text: &str) -> Option<Value> {
        if ["O:", "G:", "D:", "S:"].iter().any(|start| text.starts_with(start)) {
            return match text.parse::<SecurityDescriptor>() {
                Ok(descriptor) => Some(Value::SecurityDescriptor(descriptor)),
                Err(error) => self.fail(Diagnostic::error(node.span, "invalid security descriptor", error.to_string())),
            };
        }
        match text.strip_prefix("group:") {
            Some(group) => self.group(node, group).map(Value::Group),
            None => self.user(node, text).map(Value::User),
        }
    }

    /// The uid of a user by name or number.
    pub fn user(&mut self, node: &Node, text: &str) -> Option<u32> {
        let number = parse_number(text).and_then(|number| number.try_into().ok());
        match self.resolver.user(text).or(number) {
            Some(uid) => Some(uid),
            None => {
                let title = format!("unknown user `{text}`");
                self.fail(Diagnostic::error(node.span, title, "this machine has no user of this name"))
            }
        }
    }

    fn group(&mut self, node: &Node, text: &str) -> Option<u32> {
        let number = parse_number(text).and_then(|number| number.try_into().ok());
        match self.resolver.group(text).or(number) {
            Some(gid) => Some(gid),
            None => {
                let title = format!("unknown group `{text}`");
                self.fail(Diagnostic::error(node.span, title, "this machine has no group of this name"))
            }
        }
    }

    fn operand_table(&mut self, subject: &Subject, node: &Node, table: &Table) -> Option<Value> {
        let [(key, inner)] = table.entries.as_slice() else {
            return self.wrong_operand(subject, node);
        };
        match (subject.kind, key.name.as_str(), &inner.value) {
            (Kind::User, "user", Tree::Text(name)) => self.user(inner, name).map(Value::User),
            (Kind::User, "group", Tree::Text(name)) => self.group(inner, name).map(Value::Group),
            (Kind::User, "user" | "group", Tree::Integer(number)) => {
                match (u32::try_from(*number), key.name.as_str()) {
                    (Ok(uid), "user") => Some(Value::User(uid)),
                    (Ok(gid), _) => Some(Value::Group(gid)),
                    (Err(_), _) => {
                        let label = "the number of a user or group has 32 bits";
                        self.fail(Diagnostic::error(inner.span, format!("{number} is out of range"), label))
                    }
                }
            }
            (Kind::Application, "application", Tree::Text(path)) => self.application(inner, path),
            (Kind::Bytes | Kind::Application, "text", Tree::Text(text)) => self.blob_text(inner, text),
            (Kind::Bytes | Kind::Application, "hex", Tree::Text(text)) => {
                match HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
                    Ok(bytes) => Some(Value::ByteBlob(bytes)),
                    Err(error) => self.fail(Diagnostic::error(inner.span, "not hexadecimal", error.to_string())),
                }
            }
            _ => self.wrong_operand(subject, node),
        }
    }

    /// Text as the platform holds it: not empty, and without a zero that would end it.
    pub fn blob_text(&mut self, node: &Node, text: &str) -> Option<Value> {
        if text.is_empty() || text.contains('\0') {
            let label = "a text that is empty or holds a zero byte equals nothing";
            return self.fail(Diagnostic::error(node.span, "invalid text", label));
        }
        Some(Value::UnicodeString(text.to_owned()))
    }
}

/// Six bytes in hexadecimal, with colons or hyphens between them.
fn mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut address = [0; 6];
    let mut parts = text.split(separator);
    for byte in &mut address {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}
