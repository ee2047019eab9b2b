//! Diverting, as a part of what is enforced.

use super::{Divert, Entries, Parts, Ring};
use crate::{
    enforcement::{EnforceError, Enforcement},
    interfaces,
    links::Link,
    load::{LoadError, Shims},
};
use aya::maps::{HashMap, Map, MapError};
use openwfp_abi::divert::TOKENS;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

impl Enforcement {
    /// Whether a device is that by which packets are injected.
    pub(crate) fn injects_by(&self, index: u32) -> bool {
        self.device.as_ref().is_some_and(|device| device.index == index)
    }

    /// The devices of the caller's network namespace, without that by which packets are injected.
    pub(crate) fn devices_of_others(&self) -> Result<Vec<Link>, LoadError> {
        let mut devices = interfaces::of_namespace()?;
        devices.retain(|link| !self.injects_by(link.index));
        Ok(devices)
    }

    /// Tells the programs at which devices packets that were diverted are taken out.
    pub(crate) fn know_diverting_devices(&mut self) -> Result<(), LoadError> {
        if self.device.is_none() {
            return Ok(());
        }
        let name = "DIVERT_DEVICES";
        let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
        let map = self.shims.ebpf().map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
        let mut map = HashMap::<_, u32, u32>::try_from(map).map_err(failed)?;
        let gone: Vec<u32> = map.keys().filter_map(Result::ok).filter(|index| !self.devices.contains(index)).collect();
        gone.iter().for_each(|index| drop(map.remove(index)));
        self.devices.iter().try_for_each(|index| map.insert(index, 1, 0)).map_err(failed)
    }

    /// The way of packets to callouts in user space and back; to be served from here on. Once, after
    /// [`attach`](Self::attach), and only with [`Options::diverted`](crate::options::Options::diverted).
    pub fn divert(&mut self) -> Result<Divert, EnforceError> {
        let system = |source| LoadError::System { what: "cannot divert packets", source };
        let Some(device) = &self.device else {
            return Err(system(io::ErrorKind::Unsupported.into()).into());
        };
        let (ring, control, tokens) = (
            descriptor(&self.shims, "DIVERTED")?,
            descriptor(&self.shims, "DIVERT")?,
            descriptor(&self.shims, "TOKENS")?,
        );
        let room = self.options.diverted;
        let parts = Parts {
            ring: Ring::map(ring.as_fd(), room).map_err(system)?,
            ring_descriptor: ring,
            room,
            control: Entries::map(control.as_fd(), 1).map_err(system)?,
            tokens: Entries::map(tokens.as_fd(), TOKENS).map_err(system)?,
            policies: self.policies.clone(),
        };
        Ok(Divert::new(device, parts).map_err(system)?)
    }
}

/// A descriptor of a map, of the caller's own.
fn descriptor(shims: &Shims, name: &'static str) -> Result<OwnedFd, LoadError> {
    let lacks = LoadError::ObjectLacks { name };
    let (Map::RingBuf(data) | Map::Array(data)) = shims.map(name).ok_or(LoadError::ObjectLacks { name })? else {
        return Err(lacks);
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|source| LoadError::System { what: "cannot keep a map", source })
}
