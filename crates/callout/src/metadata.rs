//! Metadata: what is known beside the values that filters can test.

use std::net::SocketAddr;
use std::time::Duration;

use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use crate::FlowHandle;

/// What is known about an event beside its values (`FWPS_INCOMING_METADATA_VALUES`). What a layer does not have, or its host
/// cannot know, is `None`; `docs/callouts.md` says which layer has what.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Metadata<'a> {
    /// The flow (`FLOW_HANDLE`).
    pub flow: Option<FlowHandle>,
    /// Which way the packet goes, which need not be that of the connection (`PACKET_DIRECTION`).
    pub direction: Option<Direction>,
    /// When it happened: by the clock of the machine live, by the capture in replay.
    pub time: Timestamp,
    /// The process that owns the endpoint (`PROCESS_ID`, `PROCESS_PATH`, `TOKEN`).
    pub process: Option<Process<'a>>,
    /// The socket: its cookie (`TRANSPORT_ENDPOINT_HANDLE`).
    pub endpoint: Option<u64>,
    /// The listening socket that an accepted one comes from (`PARENT_ENDPOINT_HANDLE`).
    pub parent_endpoint: Option<u64>,
    /// The network namespace: its inode number (`COMPARTMENT_ID`).
    pub compartment: Option<u64>,
    /// The interface by which the packet arrived (`SOURCE_INTERFACE_INDEX`).
    pub source_interface: Option<u32>,
    /// The interface by which it leaves (`DESTINATION_INTERFACE_INDEX`).
    pub destination_interface: Option<u32>,
    /// The length of the frame's header, with tags, in bytes (`ETHERNET_MAC_HEADER_SIZE`).
    pub mac_header_size: Option<u16>,
    /// The length of the IP header, with options or extension headers, in bytes (`IP_HEADER_SIZE`).
    pub ip_header_size: Option<u16>,
    /// The length of the transport header, with options, in bytes (`TRANSPORT_HEADER_SIZE`).
    pub transport_header_size: Option<u16>,
    /// Time to live, or hop limit.
    pub ttl: Option<u8>,
    /// The place in a fragmented datagram (`FRAGMENT_DATA`).
    pub fragment: Option<FragmentData>,
    /// The path MTU of what is sent, in bytes (`PATH_MTU`).
    pub path_mtu: Option<u32>,
    /// Identifier and sequence number of an echo (`ICMP_ID_AND_SEQUENCE`).
    pub icmp_echo: Option<(u16, u16)>,
    /// The zone of a scoped remote address (`REMOTE_SCOPE_ID`).
    pub remote_scope: Option<u32>,
    /// Why the packet was discarded, at a discard layer (`DISCARD_REASON`): the filter that blocked it.
    pub discarded_by: Option<u64>,
    /// ALE_AUTH_RECV_ACCEPT will be asked about the packet too (`ALE_CLASSIFY_REQUIRED`): it cannot be pended before that.
    pub ale_classify_required: bool,
    /// Where a redirected packet or connection was meant to go (`ORIGINAL_DESTINATION`).
    pub original_destination: Option<SocketAddr>,
    /// The number of the frame in a capture, from 1; in replay alone. Ours.
    pub frame: Option<u64>,
}

/// A process, as the kernel knew it at the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process<'a> {
    /// The number of the thread group.
    pub pid: u32,
    /// The path of the executable, as it was when it was executed.
    pub path: Option<&'a str>,
    /// The name of the thread.
    pub name: Option<&'a str>,
    /// The effective user.
    pub uid: Option<u32>,
    /// The effective group.
    pub gid: Option<u32>,
    /// How long the process had been running.
    pub age: Option<Duration>,
}

/// Where a fragment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentData {
    /// What the fragments of a datagram have in common.
    pub identification: u32,
    /// The place of its first byte, in bytes.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}
