//! The device by which packets are injected: an `ifb` of our own, in the network namespace of the policy. Nothing but what we send
//! by our own socket ever leaves it, and that goes elsewhere by `divert_inject`.

use crate::netlink::{Socket, to_attribute};
use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// The longest packet that needs no segmenting, and the header of its frame.
const MTU: u32 = 65536;

// `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_LINKINFO`, `IFLA_INFO_KIND`.
const NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;

/// The device, which goes when this is dropped.
pub(crate) struct Device {
    pub index: u32,
    pub name: String,
    netlink: Socket,
}

/// `struct ifinfomsg`: family, padding, hardware type, index, flags, changed flags.
fn header(index: u32, up: bool) -> Vec<u8> {
    let flags = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    [0, index, flags, flags].into_iter().flat_map(u32::to_ne_bytes).collect()
}

impl Device {
    /// Makes the device and brings it up.
    pub fn make() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let netlink = Socket::open(libc::NETLINK_ROUTE)?;
        let name = format!("wfp{}x{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let text = CString::new(name.clone()).map_err(io::Error::other)?;
        let kind = to_attribute(LINK_INFO, &to_attribute(INFO_KIND, b"ifb\0"));
        let attributes =
            [to_attribute(NAME, text.as_bytes_with_nul()), to_attribute(LINK_MTU, &MTU.to_ne_bytes()), kind].concat();
        netlink.create(libc::RTM_NEWLINK, &[header(0, false), attributes].concat())?;
        // SAFETY: a text that ends with a zero.
        let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let device = Self { index, name, netlink };
        // the kernel would announce itself there, which means nothing; a kernel without IPv6 has no such file
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", device.name), "1");
        device.netlink.request(libc::RTM_NEWLINK, &header(index, true))?;
        Ok(device)
    }

    /// A socket that sends frames there, with the header of virtio before each; and its cookie.
    pub fn socket(&self) -> io::Result<(OwnedFd, u64)> {
        // SAFETY: a new descriptor, which is owned from here on. Protocol 0: it receives nothing.
        let socket = unsafe {
            match libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
                -1 => return Err(io::Error::last_os_error()),
                socket => OwnedFd::from_raw_fd(socket),
            }
        };
        let set = |level, option, value: i32| {
            // SAFETY: the option is one number of this length.
            match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        set(libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20)?;
        let mut cookie = 0u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the option is one number of this length.
        let got = unsafe {
            let place = (&raw mut cookie).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, place, &raw mut length)
        };
        if got == 0 { Ok((socket, cookie)) } else { Err(io::Error::last_os_error()) }
    }
}

/// linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;

impl Drop for Device {
    fn drop(&mut self) {
        // one that is gone already is gone
        let _ = self.netlink.request(libc::RTM_DELLINK, &header(self.index, false));
    }
}
