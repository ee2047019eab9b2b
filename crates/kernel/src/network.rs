//! What is followed of the caller's network namespace: interfaces and addresses that come, go or become others (rtnetlink(7)),
//! and devices that the programs are attached to.

use crate::{
    config,
    enforcement::{EnforceError, Enforcement},
    events,
    hooks::{self, Hook},
    interfaces,
    links::Link,
    load::LoadError,
    netlink::Socket,
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Where news comes in, and one descriptor that is readable for news and for something else.
pub(crate) struct News {
    socket: Socket,
    /// An epoll(7) descriptor.
    ready: OwnedFd,
}

impl News {
    /// Listens from now on. Whoever lists interfaces after this misses none.
    pub(crate) fn listen() -> io::Result<Self> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        socket.subscribe(GROUPS)?;
        // SAFETY: a new descriptor, which is owned from here on.
        let ready = unsafe {
            match libc::epoll_create1(libc::EPOLL_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                ready => OwnedFd::from_raw_fd(ready),
            }
        };
        let news = Self { socket, ready };
        news.wake_for(news.socket.as_fd())?;
        Ok(news)
    }

    /// Lets the descriptor be readable when this one is, too.
    pub(crate) fn wake_for(&self, other: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        let (ready, other) = (self.ready.as_raw_fd(), other.as_raw_fd());
        // SAFETY: open descriptors, and one structure of our own.
        match unsafe { libc::epoll_ctl(ready, libc::EPOLL_CTL_ADD, other, ptr::from_mut(&mut event)) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Whether something has changed since this was last asked. What it was does not matter, since everything is listed anew.
    pub(crate) fn heard(&self) -> bool {
        self.socket.takes_news()
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// Interfaces that could not be listed, or attached to, are looked at again after so long.
const FOLLOW_AGAIN: Duration = Duration::from_millis(200);

impl Enforcement {
    /// Attaches to those of the devices to which nothing is attached yet.
    pub(crate) fn attach_to_devices(&mut self, devices: &[Link]) -> Result<(), LoadError> {
        if !self.hooks.iter().any(|hook| hook.is_of_devices()) {
            return Ok(());
        }
        // the number of one that is gone may be given out again
        self.devices.retain(|index| devices.iter().any(|device| device.index == *index));
        let mut failed = Ok(());
        for device in devices {
            if self.devices.contains(&device.index) || self.injects_by(device.index) {
                continue;
            }
            match hooks::attach_to_device(&mut self.shims, &self.hooks, device, false, self.options.pins.as_deref()) {
                Ok(()) => drop(self.devices.insert(device.index)),
                // one that cannot be watched, or is gone already, does not keep the others from being
                Err(error) => failed = Err(error),
            }
        }
        self.know_diverting_devices()?;
        failed
    }

    /// The devices at which programs are attached, by index.
    pub fn devices(&self) -> &BTreeSet<u32> {
        &self.devices
    }

    /// Looks at interfaces and addresses when they have changed; once more a little later when that fails.
    pub(crate) fn follow_network(&mut self) {
        let heard = self.news.heard();
        let due = self.follow_again.is_some_and(|time| Instant::now() >= time);
        if !self.attached || !heard && !due {
            return;
        }
        let failed = self.refresh_interfaces().is_err();
        self.changes_not_followed += u64::from(failed);
        self.follow_again = failed.then(|| Instant::now() + FOLLOW_AGAIN);
    }

    /// Whichever way the next packet of a flow goes, it is asked: attaches the programs of packets, where flows are authorized and one
    /// of them was not needed until now.
    fn watch_both_ways(&mut self) -> Result<(), LoadError> {
        let mut new = vec![Hook::Egress, Hook::Ingress];
        let authorizes = self.hooks.contains(&Hook::Connect4) || new.iter().any(|hook| self.hooks.contains(hook));
        new.retain(|hook| !self.hooks.contains(hook));
        if !self.attached || !authorizes || new.is_empty() {
            return Ok(());
        }
        hooks::load(&mut self.shims, &new)?;
        hooks::attach(&mut self.shims, &new, &self.group, self.options.pins.as_deref())?;
        self.hooks.extend(new);
        Ok(())
    }

    /// Network interfaces or addresses may have changed: tells the programs, as [`Self::events`] does by itself. Where one has
    /// come, gone or become another, each flow is authorized again at its next packet.
    pub fn refresh_interfaces(&mut self) -> Result<(), EnforceError> {
        let links = interfaces::of_namespace()?;
        // the maps first: what is authorized under the new number has seen what is in them
        let written = interfaces::write(self.shims.ebpf(), &links);
        if written.as_ref().map_or(true, |written| written.changed) {
            self.watch_both_ways()?;
            let at = events::monotonic();
            let next = config::network_changed(&self.config, at);
            config::write(&mut self.shims, next)?;
            self.config = next;
            if let Some(unsettled) = &mut self.unsettled {
                *unsettled = config::network_changed(unsettled, at);
            }
        }
        self.attach_to_devices(&links)?;
        written?;
        Ok(())
    }
}
