//! The built-in callouts: the classic uses, each written with the public interface alone.

mod block_sites;
mod datagram_cipher;
mod dns_monitor;
mod dns_names;
mod find_patterns;
mod http;
mod settings;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use openwfp_model::{Data, LayerId, names};

pub use block_sites::BlockSites;
pub use datagram_cipher::DatagramCipher;
pub use dns_monitor::DnsMonitor;
pub use find_patterns::FindPatterns;
pub use settings::{Settings, SettingsError};

use crate::Callout;

/// A callout that comes with openwfp.
#[non_exhaustive]
pub struct BuiltIn {
    /// The name by which policies use it.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The families of layers at which it can be asked.
    pub layers: &'static [&'static str],
    /// What can be set.
    pub settings: &'static [Setting],
    make: fn(&Settings<'_>) -> Result<Arc<dyn Callout>, SettingsError>,
}

/// Something that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name.
    pub name: &'static str,
    /// What is written there.
    pub kind: &'static str,
    /// What holds without; none where it has to be given.
    pub default: Option<&'static str>,
    /// What it does.
    pub about: &'static str,
}

impl BuiltIn {
    /// Makes one, with settings.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn make(&self, settings: &BTreeMap<String, Data>) -> Result<Arc<dyn Callout>, SettingsError> {
        let settings = Settings::new(settings);
        settings.check_names(self.settings)?;
        (self.make)(&settings)
    }
}

static BUILT_IN: [BuiltIn; 4] =
    [block_sites::BUILT_IN, dns_monitor::BUILT_IN, datagram_cipher::BUILT_IN, find_patterns::BUILT_IN];

/// All of them.
#[must_use]
pub fn all() -> &'static [BuiltIn] {
    &BUILT_IN
}

/// The one of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|found| found.name == name)
}

/// The name nearest to one that is none.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    names::nearest(name, BUILT_IN.iter().map(|found| found.name))
}

/// The layers of both versions of IP of some families.
fn layers(families: &[&str]) -> Vec<LayerId> {
    families.iter().flat_map(|family| openwfp_model::Layer::family(family)).collect()
}
