//! Callouts of openwfp: code that filters name.
//!
//! In the order in which one meets them:
//!
//! 1. [`Callout`]: what an author writes, and [`Registration`], what is known of it.
//! 2. [`Classification`]: one event that met a filter: [`IncomingValues`], [`Metadata`], [`LayerData`], the [`Filter`].
//! 3. [`ClassifyOut`]: where the answer is written: permit, block, absorb, another packet, a [`StreamAction`], a redirection; or the
//!    event is pended, and a [`PendedOperation`] answered later.
//! 4. [`Platform`]: contexts of flows, injection ([`Injector`]), reauthorization, reports; in and out of classifications.
//! 5. [`PacketBuilder`]: packets from scratch.
//! 6. [`Registry`]: calls callouts in this process, and keeps what they have under way within bounds.
//! 7. [`policy`]: the callouts that policies name, and [`builtin`], those that come with openwfp.
//! 8. [`replay`]: callouts over captures; [`serve`] and [`host`]: callouts for live traffic, in a process of their own.
//!
//! No author needs `unsafe`, and none needs to know where a callout runs: the same code is asked in this process, in a replay
//! or live. Items that say "for hosts" are for programs that call callouts.

mod builder;
pub mod builtin;
mod callout;
mod checksum;
mod classification;
mod context;
mod data;
mod described;
mod dispatch;
mod filter;
mod flow;
pub mod host;
mod inject;
mod metadata;
mod out;
mod pend;
mod platform;
pub mod policy;
mod redirect;
mod registry;
pub mod replay;
mod report;
mod services;
mod settle;
mod values;

pub use builder::{BuildError, PacketBuilder};
pub use callout::{Callout, Limits, Notification, Refused, Registration};
pub use checksum::{MendError, mend};
pub use classification::Classification;
pub use data::{LayerData, PacketData, StreamData, StreamFlags};
pub use dispatch::{LayerEvent, LayerOutcome, Said, can_pend};
pub use filter::{Filter, ProviderContext};
pub use flow::{FlowContext, FlowContextError, FlowHandle};
pub use host::serve;
pub use inject::{InjectError, Injection, InjectionHistory, InjectionPoint, Injector, PacketInjectionState};
pub use metadata::{FragmentData, Metadata, Process};
pub use out::{ActionSoFar, Answer, ClassifyOut, Pender, StreamAction};
pub use pend::{Completer, PendError, PendedOperation};
pub use platform::{Platform, Services};
pub use redirect::{RedirectRecord, RedirectRequest, RedirectState};
pub use registry::{AddFilterError, CalloutReport, Counts, RegisterError, Registry, UnregisterError};
pub use report::{DnsReport, Report};
pub use settle::{Nonsense, Question};
pub use values::{IncomingValue, IncomingValues};

pub use openwfp_engine::CalloutAction;
pub use openwfp_packet::{flow::Direction, time::Timestamp};
