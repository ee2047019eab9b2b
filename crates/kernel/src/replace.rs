//! Another policy in the place of one that is enforced, while programs decide.
//!
//! A classification reads one word, generation and place of the image, and works on that image to its end. So writing
//! that word is the switch. Around it nothing may be let through that both policies refuse, and the order of writes sees
//! to it:
//!
//! 1. The image goes where nobody reads. The applications that the new policy names are added to the map of applications, under
//!    numbers that mean nothing to the old image. Programs that the new policy needs are loaded.
//! 2. The flags of both policies together: each of them only makes a program look closer or keep more, never less.
//! 3. The programs that were not attached are: they decide by the old image, which has no filters where they look.
//! 4. When every program that was running has ended, all of them work under the flags of both.
//! 5. The image word: the switch.
//! 6. When every program that was running has ended, none works on the old image any more. Its memory is free, and flags
//!    and applications that it alone needed go. Flags that marks on sockets depend on stay.
//!
//! What fails before 5 leaves the old policy as it was: programs that were attached for the new one are detached, its
//! flags are taken back, and the rest means nothing to the old image. What fails after it is made up for before the next
//! switch.
//!
//! Programs stay attached when a policy comes that does not need them: sockets were marked under them.

use crate::{
    authorizing::AuthorizingFilters,
    config,
    divert::Policy,
    enforcement::{EnforceError, Enforcement, Warning},
    events,
    grace::Grace,
    hooks::{self, Hook},
    image,
    known::{Named, not_waited},
    load::LoadError,
    namespaces::Asked,
};
use openwfp_abi::{
    cgroup::GroupKey,
    config::{CHANGED, Config, FLOWS_RECORDED, FORGOTTEN},
    file::FileKey,
};
use openwfp_engine::CompiledPolicy;
use openwfp_model::{FieldId, LayerId};

/// What came of replacing a policy.
#[derive(Debug)]
pub struct Replaced {
    /// The generation that holds now.
    pub generation: u32,
    /// The programs that were attached for it.
    pub hooks: Vec<Hook>,
    /// What was left undone.
    pub warnings: Vec<Warning>,
}

impl Enforcement {
    /// The generation of the policy that holds.
    pub fn generation(&self) -> u32 {
        (self.config.image >> 32) as u32
    }

    /// Puts a policy in the place of the one that holds. It must be the generation after it (see
    /// [`compile_after`](openwfp_engine::compile_after)). Each classification is made by one of the two, and those that begin
    /// after this has returned by the new one. On failure the old one holds as before.
    ///
    /// Flows that were authorized before, at a layer whose filters are others now, are authorized again at their next packet. Sockets keep what was decided when they
    /// were made, bound or told to listen.
    pub fn replace(&mut self, policy: &CompiledPolicy, recorded: &[LayerId]) -> Result<Replaced, EnforceError> {
        if policy.classes().has_wide(FieldId::ALE_APP_ID) {
            return Err(EnforceError::WideApplications);
        }
        let (found, current) = (policy.generation(), self.generation());
        if found != current.wrapping_add(1) {
            return Err(EnforceError::Generation { found, current });
        }
        // The bits of an endpoint's owner are kept with the socket: under a group that was not known then he would pass for
        // somebody who is not in it.
        if let Some((gid, _)) = policy.groups().iter().find(|(gid, bit)| self.groups.get(gid) != Some(bit)) {
            return Err(EnforceError::UnknownGroup { gid });
        }
        if let Some(field) = Asked::by(policy).beyond(self.asked) {
            return Err(EnforceError::NotAsked { field });
        }
        self.settle()?;
        let cells = policy.image().cells();
        let room = self.cells.count();
        let base = image::beside(&self.place, cells.len(), room).ok_or_else(|| EnforceError::NoRoom {
            cells: cells.len(),
            room: self.place.start.max(room.saturating_sub(self.place.end)),
        })?;

        self.cells.write(base, cells)?;
        let (named, missing) = Named::find(policy, self.shims.hash_key());
        let groups = Named::groups(policy, self.shims.hash_key());
        // an entry is true whatever policy holds
        let without = self.namespaces.write(&mut self.shims, policy)?;
        let layers: Vec<LayerId> = config::used_layers(policy).chain(recorded.iter().copied()).collect();
        let next = config::of_policy(policy, base, &self.options, recorded, self.config.namespace);
        let filters = AuthorizingFilters::of(policy);
        let mut next = config::changed(next, &self.config, self.filters.differ(&filters), events::monotonic());
        if !Hook::see_all_connections(&self.hooks) {
            next.flags |= FORGOTTEN;
        }
        let mut new = Hook::wanted(layers.iter().copied(), self.options.devices);
        if next.flags & FLOWS_RECORDED != 0 {
            new.push(Hook::Release);
        }
        if next.flags & CHANGED != 0 {
            // whichever way the next packet of a flow goes, it is asked
            new.extend([Hook::Egress, Hook::Ingress]);
        }
        new.sort_unstable();
        new.dedup();
        new.retain(|hook| !self.hooks.contains(hook));
        let before = self.config;
        self.policies.prepare(diverting(policy, &named));
        let switched = self.switch(&next, (&named, &groups), &new);
        self.policies.switched(switched.is_ok());
        if let Err(error) = switched {
            // as long as this fails, the flags of both stand, which is no harm
            let _ = config::write(&mut self.shims, before);
            // nor is what was added, but it would take the room of the next
            if let Some(grace) = &self.grace {
                let _ = self.applications.clear_up(&mut self.shims, grace);
                let _ = self.named_groups.clear_up(&mut self.shims, grace);
            }
            return Err(error.into());
        }
        self.unsettled = Some(config::settled(&before, &next));
        self.filters = filters;
        self.place = base..base + cells.len() as u32;
        self.applications.switched(named);
        self.named_groups.switched(groups);
        self.hooks.extend(&new);
        self.layers.extend(layers);
        // the new policy holds, whatever comes of this: the next one sees to it
        let _ = self.settle();
        let mut warnings: Vec<Warning> = missing.into_iter().map(Warning::from).collect();
        warnings.extend(without.into_iter().map(Warning::NetworkNamespace));
        // what the kernel drops by itself is told without anything that was kept
        let later: Vec<Hook> = new.iter().copied().filter(|hook| *hook != Hook::KernelDrop).collect();
        if !later.is_empty() {
            warnings.push(Warning::LaterHooks(later));
        }
        Ok(Replaced { generation: found, hooks: new, warnings })
    }

    /// Everything up to the switch, and the switch. On failure programs decide by the old policy; its flags are still to be
    /// written.
    fn switch(
        &mut self,
        next: &Config,
        (named, groups): (&Named<FileKey>, &Named<GroupKey>),
        new: &[Hook],
    ) -> Result<(), LoadError> {
        let generation = (next.image >> 32) as u32;
        let grace = made(&mut self.grace)?;
        self.applications.write(&mut self.shims, named, generation, Some(grace))?;
        self.named_groups.write(&mut self.shims, groups, generation, Some(grace))?;
        hooks::load(&mut self.shims, new)?;
        let mut both = config::both(&self.config, next);
        config::write(&mut self.shims, both)?;
        self.look_closer(new)?;
        (both.image, both.changed, both.changed_at) = (next.image, next.changed, next.changed_at);
        config::write(&mut self.shims, both).inspect_err(|_| self.look_away(new))?;
        self.config = both;
        Ok(())
    }

    /// Attaches programs, and waits until all that run have seen what was written before.
    fn look_closer(&mut self, new: &[Hook]) -> Result<(), LoadError> {
        if self.attached {
            hooks::attach(&mut self.shims, new, &self.group, self.options.pins.as_deref())?;
            self.attach_later(new)?;
        }
        let waited = made(&mut self.grace).and_then(|grace| grace.wait().map_err(not_waited));
        if waited.is_err() {
            self.look_away(new);
        }
        waited
    }

    /// Attaches programs of devices to those to which others are attached already, and to new ones.
    fn attach_later(&mut self, new: &[Hook]) -> Result<(), LoadError> {
        if !new.iter().any(|hook| hook.is_of_devices()) {
            return Ok(());
        }
        let attached = self.devices_of_others()?.into_iter().try_for_each(|device| {
            self.devices.insert(device.index);
            hooks::attach_to_device(&mut self.shims, new, &device, false, self.options.pins.as_deref())
        });
        if attached.is_err() {
            self.look_away(new);
        }
        attached
    }

    fn look_away(&mut self, new: &[Hook]) {
        if self.attached {
            hooks::detach(&mut self.shims, new, &self.devices, self.options.pins.as_deref());
        }
    }

    /// Ends what a switch has begun: when nobody works for the policy before, what it alone needed goes.
    fn settle(&mut self) -> Result<(), LoadError> {
        let Some(settled) = self.unsettled else { return Ok(()) };
        let grace = made(&mut self.grace)?;
        grace.wait().map_err(not_waited)?;
        config::write(&mut self.shims, settled)?;
        self.config = settled;
        self.applications.clear_up(&mut self.shims, grace)?;
        self.named_groups.clear_up(&mut self.shims, grace)?;
        self.unsettled = None;
        Ok(())
    }
}

/// A policy as diverted packets are decided by it.
pub(crate) fn diverting(policy: &CompiledPolicy, named: &Named<FileKey>) -> Policy {
    let (cells, applications) = (policy.image().cells().to_vec(), named.classes().clone());
    Policy { generation: policy.generation(), cells, applications }
}

/// The maps whose change is waited for, which are made when there is first something to wait for.
fn made(grace: &mut Option<Grace>) -> Result<&Grace, LoadError> {
    match grace {
        Some(grace) => Ok(grace),
        none => Ok(none.insert(Grace::new().map_err(not_waited)?)),
    }
}
