//! Hosts: processes that serve callouts to live traffic.
//!
//! A host is any program whose `main` ends in [`serve`]:
//!
//! ```no_run
//! use openwfp_callout::{Callout, Classification, ClassifyOut, Registration};
//! use std::{process::ExitCode, sync::Arc};
//!
//! struct ShortDatagrams;
//!
//! impl Callout for ShortDatagrams {
//!     fn registration(&self) -> Registration {
//!         Registration::new(openwfp_model::Guid::named("acme", "short datagrams"), "acme.short-datagrams")
//!     }
//!
//!     fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
//!         if event.packet().is_some_and(|packet| packet.payload().len() > 512) {
//!             out.block();
//!         }
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     openwfp_callout::serve([Arc::new(ShortDatagrams) as Arc<dyn Callout>])
//! }
//! ```
//!
//! A policy names the program (`host = "/path"`); `wfp run` starts it, hands it a [channel](openwfp_channel), and ends it. What is said
//! on the channel's control socket is in [`control`]; `docs/callout-protocol.md` describes all of it.

pub mod control;
mod data;
mod flows;
mod serving;

use std::process::ExitCode;
use std::sync::Arc;

use openwfp_channel::{AdoptError, Host, OpenError, Parts};

use crate::{Callout, Refused, builtin};
pub use control::Wanted;
pub use serving::ServeError;

/// Serves callouts to the `wfp` that has started this process, until that ends it: the end of a host's `main`.
///
/// The policy's callout gets the one of these that has its key, else the one that has its name, else the only one.
pub fn serve(callouts: impl IntoIterator<Item = Arc<dyn Callout>>) -> ExitCode {
    let callouts: Vec<Arc<dyn Callout>> = callouts.into_iter().collect();
    serve_made(|wanted| choose(&callouts, wanted))
}

/// Serves the callout that is made for what the policy wants, which knows its settings then.
pub fn serve_made(make: impl FnOnce(&Wanted) -> Result<Arc<dyn Callout>, Refused>) -> ExitCode {
    match Parts::from_environment() {
        Ok(parts) => serve_on(parts, make),
        Err(error) => {
            eprintln!("{}: {error}", name());
            ExitCode::from(if matches!(error, AdoptError::NotStarted) { 2 } else { 1 })
        }
    }
}

/// Serves a built-in callout on a channel.
pub fn serve_builtin(parts: Parts) -> ExitCode {
    serve_on(parts, |wanted| {
        let uses = wanted.uses.as_deref().unwrap_or_default();
        let found = builtin::find(uses).ok_or_else(|| Refused(format!("there is no built-in callout `{uses}`")))?;
        found.make(&wanted.settings).map_err(|error| Refused(error.to_string()))
    })
}

/// Serves the callout that is made for what the policy wants, on a channel.
pub fn serve_on(parts: Parts, make: impl FnOnce(&Wanted) -> Result<Arc<dyn Callout>, Refused>) -> ExitCode {
    let open = |parts| Host::open(parts).map_err(|error: OpenError| ServeError::Channel(error.to_string()));
    match open(parts).and_then(|channel| serving::run(channel, make)) {
        Ok(()) => ExitCode::SUCCESS,
        // it was said to who has asked
        Err(ServeError::Refused) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}: {error}", name());
            ExitCode::FAILURE
        }
    }
}

/// The name of this program, for what it says.
fn name() -> String {
    std::env::args().next().unwrap_or_else(|| "host".to_owned())
}

fn choose(callouts: &[Arc<dyn Callout>], wanted: &Wanted) -> Result<Arc<dyn Callout>, Refused> {
    let registrations: Vec<_> = callouts.iter().map(|callout| callout.registration()).collect();
    let by_key = registrations.iter().position(|registration| registration.key == wanted.key);
    let by_name = || registrations.iter().position(|registration| registration.name == wanted.name);
    let only = || (callouts.len() == 1).then_some(0);
    let found = by_key.or_else(by_name).or_else(only);
    found.map(|at| callouts[at].clone()).ok_or_else(|| {
        let names: Vec<&str> = registrations.iter().map(|registration| &*registration.name).collect();
        Refused(format!("this host has no callout of the key or the name; it has {}", names.join(", ")))
    })
}
