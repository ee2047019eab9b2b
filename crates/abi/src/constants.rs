//! The read-only constants of the object file, in one list for both sides.
//!
//! The programs declare a `static` for each name, initialised to zero; the loader overrides it
//! before the object is loaded, and the verifier sees a known number. Each list is a macro that
//! hands its entries to a macro of the caller, so that a name cannot differ between the two sides.

/// Hands the offsets of kernel members to `$callback!`, as `NAME = "structure.member";` in bytes.
///
/// The loader finds them in the running kernel's BTF. Members of unnamed structures and unions
/// count as members of the structure around them.
#[macro_export]
macro_rules! kernel_members {
    ($callback:ident) => {
        $callback! {
            TASK_PID = "task_struct.pid";
            TASK_TGID = "task_struct.tgid";
            TASK_GROUP_LEADER = "task_struct.group_leader";
            TASK_START_BOOTTIME = "task_struct.start_boottime";
            TASK_COMM = "task_struct.comm";
            TASK_CRED = "task_struct.cred";
            TASK_SIGNAL = "task_struct.signal";
            TASK_GROUPS = "task_struct.cgroups";
            GROUPS_DEFAULT = "css_set.dfl_cgrp";
            SIGNAL_LIVE = "signal_struct.live";
            CRED_EUID = "cred.euid";
            CRED_EGID = "cred.egid";
            CRED_GROUP_INFO = "cred.group_info";
            GROUP_INFO_NGROUPS = "group_info.ngroups";
            GROUP_INFO_GID = "group_info.gid";
            BPRM_FILE = "linux_binprm.file";
            FILE_PATH_MNT = "file.f_path.mnt";
            FILE_PATH_DENTRY = "file.f_path.dentry";
            VFSMOUNT_ROOT = "vfsmount.mnt_root";
            DENTRY_PARENT = "dentry.d_parent";
            DENTRY_HASH_PPREV = "dentry.d_hash.pprev";
            DENTRY_NAME_LENGTH = "dentry.d_name.len";
            DENTRY_NAME = "dentry.d_name.name";
            DENTRY_SB = "dentry.d_sb";
            SB_DEV = "super_block.s_dev";
            SB_ROOT = "super_block.s_root";
            SOCK_BOUND_DEVICE = "sock_common.skc_bound_dev_if";
            SOCK_LOCAL_V4 = "sock_common.skc_rcv_saddr";
            SOCK_LOCAL_V6 = "sock_common.skc_v6_rcv_saddr";
            SOCK_LOCAL_PORT = "sock_common.skc_num";
            SOCK_REMOTE_V4 = "sock_common.skc_daddr";
            SOCK_REMOTE_V6 = "sock_common.skc_v6_daddr";
            SOCK_REMOTE_PORT = "sock_common.skc_dport";
            SOCK_NAMESPACE = "sock_common.skc_net.net";
            NAMESPACE_COOKIE = "net.net_cookie";
            SOCK_ROUTE = "sock.sk_dst_cache";
            ROUTE_DEVICE = "dst_entry.dev";
            DEVICE_INDEX = "net_device.ifindex";
            SOCKET_SOCK = "socket.sk";
            SOCK_GROUP = "sock.sk_cgrp_data.cgroup";
            GROUP_NODE = "cgroup.kn";
            GROUP_PARENT = "cgroup.self.parent";
            STATE_GROUP = "cgroup_subsys_state.cgroup";
            NODE_ID = "kernfs_node.id";
            NODE_NAME = "kernfs_node.name";
            UNIX_DENTRY = "unix_sock.path.dentry";
            UNIX_ADDRESS = "unix_sock.addr";
            UNIX_ADDRESS_LENGTH = "unix_address.len";
            UNIX_ADDRESS_NAME = "unix_address.name";
            DENTRY_INODE = "dentry.d_inode";
            INODE_NUMBER = "inode.i_ino";
            SOCK_STATE = "sock_common.skc_state";
            SOCK_COOKIE = "sock_common.skc_cookie";
            SOCK_LISTENER = "sock_common.skc_listener";
            DEVICE_NAMESPACE = "net_device.nd_net.net";
            PACKET_SOCK = "sk_buff.sk";
            PACKET_DEVICE = "sk_buff.dev";
            PACKET_ROUTE = "sk_buff._skb_refdst";
            PACKET_TYPE = "sk_buff.__pkt_type_offset";
            PACKET_ARRIVAL = "sk_buff.skb_iif";
            PACKET_PROTOCOL = "sk_buff.protocol";
            PACKET_TRANSPORT = "sk_buff.transport_header";
            PACKET_NETWORK = "sk_buff.network_header";
            PACKET_TAIL = "sk_buff.tail";
            PACKET_HEAD = "sk_buff.head";
            PACKET_DATA = "sk_buff.data";
            PACKET_END = "sk_buff.end";
            PACKET_SUM_START = "sk_buff.csum_start";
            PACKET_SUM_OFFSET = "sk_buff.csum_offset";
            SHARED_GSO_TYPE = "skb_shared_info.gso_type";
            CALL_ADDRESS = "bpf_sock_addr_kern.uaddr";
            CALL_ADDRESS_LENGTH = "bpf_sock_addr_kern.uaddrlen";
        }
    };
}

/// Hands the places of one-bit kernel members to `$callback!`, as `NAME = "structure.member";`
/// counted in *bits* from the start of the structure: byte `NAME / 8`, bit `NAME % 8`.
#[macro_export]
macro_rules! kernel_bits {
    ($callback:ident) => {
        $callback! {
            PACKET_SUMMED = "sk_buff.ip_summed";
            SOCK_IPV6ONLY = "sock_common.skc_ipv6only";
        }
    };
}

/// Hands the settings of one load to `$callback!`, as `/// text` and `NAME: type;`.
#[macro_export]
macro_rules! settings {
    ($callback:ident) => {
        $callback! {
            /// Id of the control group (cgroup v2) whose tasks are labelled: its inode number.
            GROUP_ID: u64;
            /// How deep that group stands below the root of the hierarchy, which has level 0.
            GROUP_LEVEL: u32;
            /// First half of the key of the path hash.
            HASH_KEY_LOW: u64;
            /// Second half of the key of the path hash.
            HASH_KEY_HIGH: u64;
            /// 1 when the policy names groups, so that those of a task have to be looked up.
            GROUPS_ASKED: u32;
            /// 1 when packets may be diverted: else what does so is no part of the programs.
            DIVERTS_ASKED: u32;
            /// The mark of a packet that was diverted, and is to be taken out of the stack where it leaves; drawn by lot.
            DIVERT_MARK: u32;
            /// 1 when the policy asks for control groups, units or containers.
            CGROUPS_ASKED: u32;
            /// 1 when the policy asks for network namespaces.
            NAMESPACES_ASKED: u32;
            /// 1 when the kernel says for which socket a packet was that it drops (from Linux 6.11 on).
            DROP_RECEIVER: u32;
            /// A flow of datagrams that was not used for so many nanoseconds has ended.
            FLOW_IDLE: u64;
        }
    };
}
