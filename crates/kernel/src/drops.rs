//! The kernel's reasons to drop a packet: their names, and what the programs have to know of each.
//!
//! The numbers differ from kernel to kernel; the names are read from the running one's type information.

use crate::{
    btf::{Btf, BtfError},
    load::LoadError,
};
use aya::{Ebpf, maps::Array};
use openwfp_abi::drop::{
    REASONS,
    class::{IP, NO_ROOM, NOBODY, NOT_MET},
};
use std::{collections::HashMap, sync::Arc};

/// The tracepoint that tells of dropped packets.
pub(crate) const TRACEPOINT: &str = "kfree_skb";

/// What all names begin with.
const PREFIX: &str = "SKB_DROP_REASON_";

/// What reasons say, where it is not the packet's place alone. Not every kernel has all of them.
const CLASSES: [(&str, u32); 19] = [
    // programs of control groups on the way out, of sockets and control groups on the way in, of devices: ours among them
    ("BPF_CGROUP_EGRESS", NOT_MET),
    ("SOCKET_FILTER", NOT_MET),
    ("TC_INGRESS", NOT_MET),
    ("TC_EGRESS", NOT_MET),
    ("XDP", NOT_MET),
    // a copy for somebody who watches
    ("PACKET_SOCK_ERROR", NOT_MET),
    // obeyed, or kept as part of another
    ("TCP_RESET", NOT_MET),
    ("TCP_OFOMERGE", NOT_MET),
    // what had arrived and was not read
    ("QUEUE_PURGE", NOT_MET),
    // it is not known yet that the packet comes in
    ("CPU_BACKLOG", NOT_MET),
    ("SKB_CONSUMED", NOT_MET),
    ("SKB_NOT_DROPPED_YET", NOT_MET),
    ("NO_SOCKET", NOBODY),
    ("SOCKET_RCVBUFF", NO_ROOM),
    ("SOCKET_BACKLOG", NO_ROOM),
    ("PROTO_MEM", NO_ROOM),
    ("IP_NOPROTO", IP),
    ("IPV6_BAD_EXTHDR", IP),
    ("XFRM_POLICY", IP),
];

/// The reasons of one kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reasons {
    names: HashMap<u32, Arc<str>>,
    /// Whether the kernel says for which socket a packet was.
    receiver: bool,
}

impl Reasons {
    /// Those of the kernel with these types; none where it gives none.
    pub fn of(types: &Btf) -> Result<Self, BtfError> {
        let all = types.enumeration("skb_drop_reason")?;
        let names = all.into_iter().map(|(name, number)| (number, name.strip_prefix(PREFIX).unwrap_or(&name).into()));
        // besides the three: the one before them, and the receiver
        let receiver = types.arguments(&format!("btf_trace_{TRACEPOINT}")).is_some_and(|count| count >= 5);
        Ok(Self { names: names.collect(), receiver })
    }

    /// Whether the kernel says for which socket a packet was that it drops.
    pub fn tell_receiver(&self) -> bool {
        self.receiver
    }

    /// The name of a reason; `None` for none. Those of parts of the kernel, which are not in its list, are given as a number.
    pub fn name(&self, number: u64) -> Option<Arc<str>> {
        if number == 0 {
            return None;
        }
        let known = u32::try_from(number).ok().and_then(|number| self.names.get(&number));
        Some(known.cloned().unwrap_or_else(|| format!("{number:#x}").into()))
    }

    /// Tells the programs.
    pub fn write(&self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        let name = "DROPS";
        let map = ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
        let failed = |source| LoadError::Map { name, source: Box::new(source) };
        let mut map = Array::<_, u32>::try_from(map).map_err(failed)?;
        for (number, reason) in self.names.iter().filter(|(number, _)| **number < REASONS) {
            if let Some((_, class)) = CLASSES.iter().find(|(named, _)| **named == **reason) {
                map.set(*number, class, 0).map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_kernel_s_name_or_its_number() {
        let reasons = Reasons { names: HashMap::from([(3, "NO_SOCKET".into())]), receiver: false };
        let name = |number| reasons.name(number).map(|name| name.to_string());
        assert_eq!(name(0), None);
        assert_eq!(name(3).as_deref(), Some("NO_SOCKET"));
        // the third of Open vSwitch
        assert_eq!(name(0x2_0003).as_deref(), Some("0x20003"));
        assert_eq!(name(u64::MAX).as_deref(), Some("0xffffffffffffffff"));
    }

    #[test]
    fn each_reason_has_one_class() {
        let names: std::collections::HashSet<_> = CLASSES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), CLASSES.len());
    }
}
