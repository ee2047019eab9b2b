//! The events of a policy that is enforced, and what follows from them.

use crate::{
    enforcement::Enforcement,
    events::{self, EndOfFlow, Event, EventKind},
    sockets,
};
use openwfp_engine::words;
use openwfp_model::LayerId;

impl Enforcement {
    /// Reads the events that there are, and ends the sockets that wait for what was refused; tells the programs of interfaces and
    /// addresses that have changed, and attaches them to devices that have come, before. Events are told in the order of
    /// time, across CPUs and from one call to the next: one that another may still come before is told by the next call.
    /// Call it whenever [`Self::poll_fd`] is readable and a little later, also when nothing is recorded, and in the network namespace
    /// in which the policy was loaded.
    pub fn events(&mut self, each: impl FnMut(Event)) {
        self.read_events();
        let told = self.events.told();
        self.tell(told, each);
    }

    /// The same for the last time: whatever was read is told.
    pub fn last_events(&mut self, mut each: impl FnMut(Event)) {
        self.events(&mut each);
        let rest = self.events.rest();
        self.tell(rest, each);
    }

    fn read_events(&mut self) {
        self.follow_network();
        let (namespaces, sockets_not_ended) = (&self.namespaces, &mut self.sockets_not_ended);
        self.events.read(&self.labels, |event| {
            let cookie = u32::try_from(event.values.get(words::COMPARTMENT_ID)).ok();
            if let Some(inode) = cookie.and_then(|cookie| namespaces.inode(cookie)) {
                event.values.set(words::LINUX_NETWORK_NAMESPACE, inode);
            }
            if !event.fail_socket || !event.enforced {
                return;
            }
            match sockets::end(event) {
                Ok(()) => {}
                // it is gone already
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(_) => *sockets_not_ended += 1,
            }
        });
    }

    fn tell(&mut self, events: Vec<Event>, mut each: impl FnMut(Event)) {
        for mut event in events {
            let ended = self.follow_flow(&mut event);
            if event.shown {
                each(event);
            }
            ended.into_iter().for_each(&mut each);
        }
        let now = u64::try_from(events::monotonic().as_nanos()).unwrap_or(u64::MAX);
        for (flow, cause) in self.flows.sweep(now) {
            each(Event::flows_deleted(vec![flow], cause, self.events.complete(), None));
        }
    }

    /// Keeps account of the flows of datagrams; what follows from the event.
    fn follow_flow(&mut self, event: &mut Event) -> Option<Event> {
        let connection = event.values.get(words::IP_PROTOCOL) == u64::from(libc::IPPROTO_TCP.unsigned_abs());
        match &mut event.kind {
            EventKind::FlowsDeleted { flows, .. } => {
                if flows.is_empty() {
                    flows.extend(self.flows.closed(event.socket));
                }
                None
            }
            EventKind::Classify if connection || event.flow == 0 => None,
            EventKind::Classify if event.blocked => {
                let ended = event.enforced && event.reauthorizes() && self.flows.ended(event.flow);
                ended.then(|| Event::flows_deleted(vec![event.flow], EndOfFlow::Refused, event.time, Some(event)))
            }
            EventKind::Classify => {
                let established = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6];
                if established.contains(&event.layer) {
                    let now = u64::try_from(events::monotonic().as_nanos()).unwrap_or(u64::MAX);
                    self.flows.established(event.flow, event.socket, now);
                }
                None
            }
        }
    }
}
