//! Numbers and arguments that a kernel gives names and forms of its own.

use super::{
    Btf, BtfError,
    format::{kind, word},
};

/// An enumerator: the offset of its name, its number.
const ENUMERATOR_BYTES: usize = 8;

impl Btf {
    /// The names and numbers of an enumeration; nothing when the kernel has none of this name.
    pub fn enumeration(&self, name: &str) -> Result<Vec<(String, u32)>, BtfError> {
        let found =
            self.types.iter().find(|ty| ty.kind() == kind::ENUM && ty.count() > 0 && self.is_named(ty.name, name));
        let Some(ty) = found else { return Ok(vec![]) };
        let one = |index| {
            let at = ty.extra + index * ENUMERATOR_BYTES;
            let name = self.text(word(&self.data, at)?).ok_or(BtfError::Damaged { at })?;
            Ok((name.to_owned(), word(&self.data, at + 4)?))
        };
        (0..ty.count()).map(one).collect()
    }

    /// How many arguments a function has that is known by the alias of a pointer to it, such as `btf_trace_NAME`; `None` when the
    /// kernel has no such alias.
    pub fn arguments(&self, alias: &str) -> Option<usize> {
        let numbered = |number: u32| self.types.get((number as usize).checked_sub(1)?);
        let alias = self.types.iter().find(|ty| ty.kind() == kind::TYPEDEF && self.is_named(ty.name, alias))?;
        let pointer = numbered(alias.target).filter(|ty| ty.kind() == kind::POINTER)?;
        numbered(pointer.target).filter(|ty| ty.kind() == kind::PROTOTYPE).map(|ty| ty.count())
    }

    fn text(&self, at: u32) -> Option<&str> {
        let strings = self.data.get(self.strings.0..self.strings.1)?;
        let rest = strings.get(at as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_running_kernel_has_reasons_to_drop() {
        if !Path::new(crate::btf::VMLINUX).exists() {
            crate::skips::skipped("this kernel publishes no BTF");
            return;
        }
        let btf = Btf::of_kernel().unwrap();
        let reasons = btf.enumeration("skb_drop_reason").unwrap();
        assert!(reasons.iter().any(|(name, number)| name == "SKB_DROP_REASON_NO_SOCKET" && *number > 1), "{reasons:?}");
        // with the one that stands before the tracepoint's own
        assert!(btf.arguments("btf_trace_kfree_skb").is_some_and(|count| count >= 4));
        assert!(btf.enumeration("no_such_enumeration").unwrap().is_empty());
        assert_eq!(btf.arguments("no_such_alias"), None);
    }
}
