//! Who the calling task is.
//!
//! To be called where a system call is being served (bind, connect, sendmsg), never for a packet.

use crate::cgroup;
use crate::label;
use crate::offsets as at;
use crate::task::{Credentials, Task};
use crate::words;
use aya_ebpf::{macros::map, maps::HashMap};
use openwfp_abi::identity::{GROUPS_NAMED, GROUPS_READ, GroupsState, Identity};

/// The groups that the policy names: group number → number of its bit, below [`GROUPS_NAMED`].
#[map]
static GROUPS: HashMap<u32, u32> = HashMap::with_max_entries(GROUPS_NAMED, 0);

/// Fills in the identity of the calling task. `None` when not even its credentials could be
/// followed; then everything about it is unreadable. For the rest see `label.state` and `groups_state`.
#[inline(always)]
pub fn current(identity: &mut Identity) -> Option<()> {
    // SAFETY: zeros are an identity.
    unsafe { words::zero(identity) };
    let task = Task::current();
    let credentials = task.credentials()?;
    let process = task.process()?;
    label::read(&process, &mut identity.label);
    identity.process = process;
    identity.thread = task.thread();
    identity.user = credentials.user()?;
    identity.group = credentials.group()?;
    if at::GROUPS_ASKED() != 0 {
        (identity.groups, identity.groups_state) =
            groups(credentials, identity.group).unwrap_or(([0; 2], GroupsState::UNREADABLE));
    }
    identity.cgroup = cgroup::current(task);
    let comm = (&raw mut identity.comm).cast::<[u64; 2]>();
    // SAFETY: sixteen bytes, aligned to eight since every field before them is whole words.
    unsafe { comm.write(task.comm()) };
    Some(())
}

/// The bits of the policy's groups that the credentials hold.
#[inline(always)]
fn groups(credentials: Credentials, group: u32) -> Option<([u32; 2], GroupsState)> {
    let supplementary = credentials.supplementary()?;
    let count = supplementary.count()?;
    if count > GROUPS_READ {
        return Some(([0; 2], GroupsState::TOO_MANY));
    }
    let mut bits = bit(group);
    for index in 0..GROUPS_READ {
        if index >= count {
            break;
        }
        bits |= bit(supplementary.group(index)?);
    }
    Some(([bits as u32, (bits >> 32) as u32], GroupsState::READ))
}

#[inline(always)]
fn bit(group: u32) -> u64 {
    match GROUPS.get_ptr(&group) {
        // SAFETY: a valid map value, written before the programs are attached.
        Some(number) => 1u64 << (unsafe { *number } & 63),
        None => 0,
    }
}
