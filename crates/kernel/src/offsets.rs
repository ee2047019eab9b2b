//! The kernel members that the programs read, and where the running kernel has them.

use crate::btf::{Btf, BtfError};

macro_rules! table {
    ($($name:ident = $member:literal;)*) => {
        &[$((stringify!($name), $member)),*]
    };
}

/// (constant of the object file, member), for offsets in bytes.
const MEMBERS: &[(&str, &str)] = openwfp_abi::kernel_members!(table);
/// (constant of the object file, member), for single bits.
const BITS: &[(&str, &str)] = openwfp_abi::kernel_bits!(table);

/// What a kernel may lack: before 6.7 the length, where hooks that read it cannot be attached anyway; without network namespaces
/// what names them, and then none is told apart.
const OPTIONAL: [&str; 3] = ["CALL_ADDRESS_LENGTH", "SOCK_NAMESPACE", "DEVICE_NAMESPACE"];

/// The constants of the object file and their values on one kernel.
#[derive(Clone, Debug)]
pub struct Offsets(Vec<(&'static str, u32)>);

impl Offsets {
    /// Finds every member. The error names the structure or member that the kernel lacks.
    pub fn find(btf: &Btf) -> Result<Self, BtfError> {
        let bytes = MEMBERS.iter().filter_map(|&(name, member)| match btf.offset(member) {
            Err(BtfError::NoMember { .. }) if OPTIONAL.contains(&name) => None,
            offset => Some(offset.map(|offset| (name, offset))),
        });
        let bits = BITS.iter().map(|&(name, member)| Ok((name, btf.bit(member)?)));
        bytes.chain(bits).collect::<Result<_, _>>().map(Self)
    }

    /// (constant, value) for each.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, path::Path};

    #[test]
    fn each_constant_stands_for_one_member() {
        let names: HashSet<_> = MEMBERS.iter().chain(BITS).map(|(name, _)| name).collect();
        assert_eq!(names.len(), MEMBERS.len() + BITS.len());
    }

    #[test]
    fn the_running_kernel_has_them_all() {
        if !Path::new(crate::btf::VMLINUX).exists() {
            crate::skips::skipped("this kernel publishes no BTF");
            return;
        }
        let btf = Btf::of_kernel().unwrap();
        let offsets = Offsets::find(&btf).unwrap();
        assert_eq!(offsets.iter().count(), MEMBERS.len() + BITS.len());
        let value = |wanted| offsets.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        assert_eq!(value("DENTRY_NAME").unwrap() - value("DENTRY_NAME_LENGTH").unwrap(), 4);
        assert!(value("TASK_TGID").unwrap() == value("TASK_PID").unwrap() + 4);
    }
}
