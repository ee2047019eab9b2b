//! The memory in which one classification is made, and the classification itself.

use crate::{
    cgroup,
    connect::Called,
    counters::count,
    identity,
    layers::discard,
    maps::{APPLICATIONS, CELLS, CONFIG, ENDPOINTS, INTERFACES, SHARED, TOTALS},
    offsets as at,
    report::{About, report_event},
    scratch::claimed,
    task::current_is_ours,
    words as record_words,
};
use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_loop, macros::map, maps::PerCpuArray};
use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
};
use openwfp_abi::{
    config::{Config, LAYERS},
    counters::NO_WORK,
    event,
    flow::OWNED,
    identity::{GroupsState, Identity},
    label::Label,
};
use openwfp_engine::{Cell, Image, MAX_STEPS, Reason, Silent, State, Step, Values, WORDS, kind, step, words};

/// How many classifications may be under way at once on one CPU: programs are preempted by one another.
const SLOTS: u32 = 6;

/// One classification's memory.
#[repr(C)]
pub struct Work {
    taken: u64,
    /// What is known about the event.
    pub values: Values,
    pub state: State,
    /// Who acts, or owns the endpoint.
    pub identity: Identity,
    /// The word of [`Config::image`] that this classification reads, once.
    image: u64,
    /// [`Config::flags`].
    pub flags: u64,
    recorded: [u64; LAYERS / 64],
    active: [u64; LAYERS / 64],
    /// A bit for each word of the values that somebody looks at.
    asked: u64,
    /// The network namespace whose interfaces and addresses are known.
    namespace: u64,
    /// [`Config::network`].
    network: u64,
    done: u64,
    /// [`MAY_STOP`]: the walk may stop for a callout that is registered. Else the counter that says why not; 0: none does.
    pub stop: u64,
    /// The flags that are kept with the packet's socket.
    pub kept: u64,
    /// The network namespace of the packet's socket.
    pub compartment: u64,
    /// Who has injected the packet; 0: nobody.
    pub injector: u64,
    /// The call that is decided about.
    pub call: Called,
    /// Why the kernel has dropped the packet, as its `enum skb_drop_reason` has it; 0: it has not.
    pub drop: u64,
}

#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(SLOTS, 0);

/// The bit of a word in [`Config::packet_words`].
pub const fn bit(word: usize) -> u64 {
    1 << word
}

/// The words of who owns a socket.
const OWNER: u64 = {
    let (mut bits, mut at) = (0, 0);
    while at < words::OWNER.len() {
        bits |= bit(words::OWNER[at]);
        at += 1;
    }
    bits
};

/// The words of who acts: those of the owner, and those of his control group.
pub const WHO: u64 = OWNER | bit(words::LINUX_CGROUP) | bit(words::LINUX_SYSTEMD_UNIT) | bit(words::LINUX_CONTAINER);

/// The words of the network namespace.
pub const NAMESPACE: u64 = bit(words::COMPARTMENT_ID) | bit(words::LINUX_NETWORK_NAMESPACE);

/// The four words of an address.
pub const fn address(first: usize) -> u64 {
    0b1111 << first
}

/// The words of interfaces that a packet's values hold.
pub const OF_INTERFACES: u64 = interface_words(words::INTERFACE_INDEX)
    | bit(words::SUB_INTERFACE_INDEX)
    | interface_words(words::ARRIVAL_INTERFACE_INDEX)
    | interface_words(words::NEXTHOP_INTERFACE_INDEX)
    | bit(words::NEXTHOP_SUB_INTERFACE_INDEX);

const fn interface_words(first: usize) -> u64 {
    (bit(words::INTERFACE_WORDS) - 1) << first
}

/// The image in the `CELLS` map.
struct MapImage {
    base: u32,
}

impl Image for MapImage {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        CELLS.get(self.base.wrapping_add(index))
    }
}

/// What a program answers when it cannot work: closed.
pub const CLOSED: Outcome = Outcome::Blocked(0);

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It may go on.
    Permitted,
    /// It may not; the errno that a refused call returns, 0: the default.
    Blocked(u16),
    /// It has to be asked again at the first packet.
    Late,
    /// A callout in user space has to be asked.
    Diverted,
    /// It is on its way there.
    Absorbed,
}

impl Outcome {
    /// As a number, which is all that a subprogram can return.
    #[inline(always)]
    pub fn number(self) -> u32 {
        match self {
            Self::Permitted => PERMIT,
            Self::Late => LATE,
            Self::Diverted => DIVERTED,
            Self::Absorbed => ABSORBED,
            Self::Blocked(errno) => errno as u32,
        }
    }

    #[inline(always)]
    pub fn of_number(number: u32) -> Self {
        match number {
            PERMIT => Self::Permitted,
            LATE => Self::Late,
            DIVERTED => Self::Diverted,
            ABSORBED => Self::Absorbed,
            errno => Self::Blocked(errno as u16),
        }
    }
}

const PERMIT: u32 = 1 << 16;
const LATE: u32 = 2 << 16;
const DIVERTED: u32 = 3 << 16;
const ABSORBED: u32 = 4 << 16;

/// A flag of [`About`]: a value that is not known yet may be waited for.
pub const MAY_WAIT: u32 = 1 << 16;
/// A flag of [`About`]: what is permitted will be asked again, and is told and counted then.
pub const PROVISIONAL: u32 = 1 << 18;
/// A flag of [`About`]: the flow is there already.
pub const OLD_FLOW: u32 = 1 << 17;
/// A flag of [`About`]: the socket has to be told when this is blocked.
pub const FAIL_SOCKET: u32 = event::FAIL_SOCKET as u32;

/// The settings now; `None` when there are none.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Whether one of several layers has filters or is recorded now.
#[inline(always)]
pub fn is_any_active(config: &Config, layers: &[u16]) -> bool {
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    let [low, high] = unsafe { (&raw const config.active).read_volatile() };
    layers.iter().any(|layer| (if *layer < 64 { low } else { high }) >> (layer % 64) & 1 != 0)
}

/// The next flow id; 0 when there is none.
#[inline(always)]
pub fn next_flow() -> u64 {
    match SHARED.get_ptr_mut(0) {
        // SAFETY: a valid, aligned map value, which is changed by atomic additions only.
        Some(last) => unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(last, 1) + 1 },
        None => 0,
    }
}

/// Counts a socket whose packets are asked: from the first one on, those that leave are looked at.
#[inline(always)]
pub fn watch_packets() {
    if let Some(made) = SHARED.get_ptr_mut(1) {
        // SAFETY: a valid, aligned map value, which is changed by atomic additions only.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(made, 1) };
    }
}

/// Memory that is nobody else's until its first word is 0 again.
///
/// Apart from what is done with it: the verifier would follow that once for each slot.
#[inline(always)]
fn claim() -> Option<*mut Work> {
    for slot in 0..SLOTS {
        let memory = WORK.get_ptr_mut(slot)?;
        // SAFETY: a valid map value; only an address is computed.
        if claimed(unsafe { &raw mut (*memory).taken }) {
            return Some(memory);
        }
    }
    count(NO_WORK);
    None
}

/// Memory for one classification; closed (and counted) when there is none. To be given back with [`Work::give_back`].
#[inline(always)]
pub fn begin() -> Option<&'static mut Work> {
    let config = config()?;
    let memory = claim()?;
    // SAFETY: it was claimed, so nobody else uses it.
    let memory = unsafe { &mut *memory };
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    unsafe {
        // before the interfaces are looked at: what was decided by those of before is asked again
        memory.network = (&raw const config.network).read_volatile() as u64;
        memory.image = (&raw const config.image).read_volatile();
        memory.flags = (&raw const config.flags).read_volatile();
        memory.recorded[0] = (&raw const config.recorded[0]).read_volatile();
        memory.recorded[1] = (&raw const config.recorded[1]).read_volatile();
        memory.active[0] = (&raw const config.active[0]).read_volatile();
        memory.active[1] = (&raw const config.active[1]).read_volatile();
        memory.asked = (&raw const config.packet_words).read_volatile();
        memory.namespace = (&raw const config.namespace).read_volatile();
        (&raw mut memory.stop).write_volatile(0);
        (&raw mut memory.injector).write_volatile(0);
        memory.drop = 0;
    }
    Some(memory)
}

/// Runs `work` with memory of its own. For what is short: a closure that LLVM does not inline takes a stack of its own.
#[inline(always)]
pub fn with(work: impl FnOnce(&mut Work) -> Outcome) -> Outcome {
    let Some(memory) = begin() else { return CLOSED };
    let outcome = work(memory);
    memory.give_back(outcome)
}

impl Work {
    /// The memory is free again; hands `outcome` through.
    #[inline(always)]
    pub fn give_back(&mut self, outcome: Outcome) -> Outcome {
        // SAFETY: a valid map value.
        unsafe { (&raw mut self.taken).write_volatile(0) };
        outcome
    }

    /// Empties all values.
    #[inline(always)]
    pub fn clear(&mut self) {
        // SAFETY: memory that is claimed.
        unsafe { clear_values(self) };
    }

    /// Those values are looked at that filters at the ALE layers test: for a call that is shown nowhere else.
    #[inline(always)]
    pub fn ask_of_call(&mut self) {
        // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
        self.asked = config().map_or(u64::MAX, |config| unsafe { (&raw const config.call_words).read_volatile() });
    }

    /// Every value is looked at: by a layer that authorizes.
    #[inline(always)]
    pub fn ask_everything(&mut self) {
        self.asked = u64::MAX;
    }

    /// Whether one of the values with these bits is looked at.
    #[inline(always)]
    pub fn asks(&self, words: u64) -> bool {
        self.asked & words != 0
    }

    /// The generation of the image that this classification reads.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        (self.image >> 32) as u32
    }

    /// How often the interfaces had changed when this classification began.
    #[inline(always)]
    pub fn network(&self) -> u32 {
        self.network as u32
    }

    /// Whether a layer has filters or is recorded.
    #[inline(always)]
    pub fn is_active(&self, layer: u16) -> bool {
        self.active[layer as usize / 64 % (LAYERS / 64)] >> (layer % 64) & 1 != 0
    }

    /// Whether classifications at a layer are to be shown.
    #[inline(always)]
    pub fn is_recorded(&self, layer: u16) -> bool {
        self.recorded[layer as usize / 64 % (LAYERS / 64)] >> (layer % 64) & 1 != 0
    }

    /// The outcome's numbers, for an event: action, reason, filter.
    #[inline(always)]
    pub fn decision(&self) -> (u8, u8, u64) {
        let arbitration = &self.state.arbitration;
        (arbitration.is_block() as u8, arbitration.reason_number(), arbitration.filter())
    }

    /// Takes the identity of the task that runs; unreadable parts stay so.
    #[inline(always)]
    pub fn identify_task(&mut self) {
        // SAFETY: memory that is claimed.
        unsafe { identify_current(self) };
        // not from there: the stack is short
        cgroup::know(self.identity.cgroup);
    }

    /// Takes the identity of the calling task.
    ///
    /// A task that is not of the group acts for somebody else: a kernel thread that joins a connection's further path
    /// (MPTCP), a process that was handed the socket. Then the socket's owner counts.
    #[inline(always)]
    pub fn identify_caller(&mut self, socket: *mut bpf_sock) {
        if current_is_ours() {
            self.identify_task();
        } else {
            self.identify_owner(Some(socket));
        }
    }

    /// Takes the identity of the socket's owner: nobody's where he is not known.
    #[inline(always)]
    pub fn identify_owner(&mut self, socket: Option<*mut bpf_sock>) {
        if let Some(endpoint) = socket.and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value.
            if unsafe { (*endpoint).flags } & OWNED != 0 {
                // SAFETY: as above.
                self.identify(unsafe { &raw const (*endpoint).owner });
                return;
            }
        }
        // SAFETY: zeros are an identity: that of nobody.
        unsafe { record_words::zero(&raw mut self.identity) };
    }

    /// Takes the identity of the owner of a packet's socket where it is looked at, or shown.
    #[inline(always)]
    pub fn identify_sender(&mut self, socket: Option<*mut bpf_sock>) {
        if self.asks(OWNER) {
            self.identify_owner(socket);
        } else {
            self.identify_nobody();
        }
    }

    /// Nobody's identity: not looked at, or not known.
    #[inline(always)]
    pub fn identify_nobody(&mut self) {
        self.identity.process.started = 0;
    }

    /// Takes an identity that was kept.
    #[inline(always)]
    pub fn identify(&mut self, owner: *const Identity) {
        // SAFETY: the caller gives a valid map value.
        unsafe { record_words::copy(owner, &raw mut self.identity) };
    }

    /// Writes application, user and groups into the values, and the control group where the policy asks for it.
    #[inline(always)]
    pub fn write_identity(&mut self) {
        if at::CGROUPS_ASKED() != 0 {
            // SAFETY: memory that is claimed.
            unsafe { cgroup::write_group(self) };
        }
        let identity = &self.identity;
        if identity.process.started == 0 {
            for word in words::OWNER {
                self.values.set_unknown(word);
            }
            return;
        }
        match application_class(&identity.label, (self.image >> 32) as u32) {
            Some(class) => {
                self.values.set(words::ALE_APP_ID, class);
                // nothing here is redirected to a proxy: the application is the original one
                self.values.set(words::ALE_ORIGINAL_APP_ID, class);
            }
            None => {
                self.values.set_unknown(words::ALE_APP_ID);
                self.values.set_unknown(words::ALE_ORIGINAL_APP_ID);
            }
        }
        self.values.set(words::ALE_USER_ID, identity.user);
        if identity.groups_state == GroupsState::TOO_MANY || identity.groups_state == GroupsState::UNREADABLE {
            self.values.set_unknown(words::GROUPS);
            self.values.set_unknown(words::GROUPS + 1);
        } else {
            self.values.set(words::GROUPS, identity.groups[0]);
            self.values.set(words::GROUPS + 1, identity.groups[1]);
        }
    }

    /// Writes the network namespace with this cookie.
    #[inline(always)]
    pub fn write_compartment(&mut self, namespace: u64) {
        self.values.set(words::COMPARTMENT_ID, namespace as u32);
        if at::NAMESPACES_ASKED() != 0 {
            // SAFETY: memory that is claimed.
            unsafe { cgroup::write_namespace(self, namespace) };
        }
    }

    /// The network namespace whose interfaces and addresses are known.
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// Whether the interfaces and addresses of a network namespace are known.
    #[inline(always)]
    pub fn knows(&self, namespace: u64) -> bool {
        self.namespace == namespace
    }

    /// Writes an interface into [`INTERFACE_WORDS`](words::INTERFACE_WORDS) words: index, type, tunnel type, LUID. Where
    /// it is one of another namespace than that whose interfaces are known, all of it is unknown: a policy's numbers are
    /// not meant for it.
    #[inline(always)]
    pub fn write_interface(&mut self, first: usize, index: u32, namespace: u64) {
        if !self.knows(namespace) {
            self.unknown_interface(first);
            return;
        }
        self.values.set(first, index);
        match INTERFACES.get_ptr(&index) {
            Some(interface) => {
                // SAFETY: a valid map value.
                let interface = unsafe { &*interface };
                self.values.set(first + 1, interface.kind);
                self.values.set(first + 2, interface.tunnel);
                self.values.set_u64(first + 3, interface.luid);
            }
            None => {
                for word in 1..words::INTERFACE_WORDS {
                    self.values.set_unknown(first + word);
                }
            }
        }
    }

    /// There is an interface, but it is not known.
    #[inline(always)]
    pub fn unknown_interface(&mut self, first: usize) {
        for word in 0..words::INTERFACE_WORDS {
            self.values.set_unknown(first + word);
        }
    }

    /// Writes one interface for another.
    #[inline(always)]
    pub fn copy_interface(&mut self, from: usize, to: usize) {
        for word in 0..words::INTERFACE_WORDS {
            self.values.copy(from + word, to + word);
        }
    }

    /// Decides about the event at a layer, and reports it. A layer without filters permits everything.
    #[inline(always)]
    pub fn decide(&mut self, about: &About) -> Outcome {
        if !self.is_active(about.layer) {
            return Outcome::Permitted;
        }
        // SAFETY: memory that is claimed.
        Outcome::of_number(unsafe { decide(self, about.layer as u32, about.socket, about.flow, about.flags) })
    }

    /// Walks the image.
    #[inline(always)]
    fn classify(&mut self, layer: u16) -> Outcome {
        self.done = 0;
        let image = MapImage { base: self.image as u32 };
        let header = image.cell(0);
        let current = header.is_some_and(|header| header.kind() == kind::HEADER && header.a == self.generation());
        if !current {
            self.state.close(Reason::UnknownGeneration);
        } else if self.state.begin(&image, layer) == Step::Again {
            let mut walk = Walk { work: self, base: image.base };
            // SAFETY: the callback gets a pointer to `walk`, which lives until the call returns.
            unsafe { bpf_loop(MAX_STEPS, one_step as *mut c_void, (&raw mut walk).cast(), 0) };
            if self.done == 0 {
                self.state.close(Reason::Bound);
            } else if self.done == STOPPED {
                return Outcome::Diverted;
            }
        }
        let arbitration = &self.state.arbitration;
        if arbitration.is_late() {
            return Outcome::Late;
        }
        if arbitration.is_block() { Outcome::Blocked(arbitration.errno()) } else { Outcome::Permitted }
    }

    /// A late value that is still not known where it must be: blocked as unreadable.
    #[inline(always)]
    fn close_late(&mut self) -> Outcome {
        self.state.close(Reason::Unreadable);
        Outcome::Blocked(0)
    }
}

/// [`Work::identify_task`], verified once, and not again wherever it is called: so are all functions that are exported.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn identify_current(work: *mut Work) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let _ = identity::current(unsafe { &mut (*work).identity });
    1
}

/// [`Work::clear`], verified once.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn clear_values(work: *mut Work) -> u32 {
    if work.is_null() {
        return 0;
    }
    for word in 0..WORDS {
        // SAFETY: the caller's.
        unsafe { (*work).values.set_empty(word) };
    }
    1
}

/// One walk over the image at a layer, and nothing else.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn classify(work: *mut Work, layer: u32) -> u32 {
    if work.is_null() {
        return CLOSED.number();
    }
    // SAFETY: the caller's.
    unsafe { (*work).classify(layer as u16).number() }
}

/// [`Work::decide`].
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide(work: *mut Work, layer: u32, socket: u64, flow: u64, flags: u32) -> u32 {
    if work.is_null() {
        return CLOSED.number();
    }
    let layer = layer as u16;
    // SAFETY: the caller's.
    let this = unsafe { &mut *work };
    if !this.is_active(layer) {
        return PERMIT;
    }
    // SAFETY: as above.
    let mut outcome = unsafe { classify(work, layer as u32) };
    if outcome == LATE {
        if flags & MAY_WAIT != 0 {
            return LATE;
        }
        outcome = this.close_late().number();
    }
    if outcome == DIVERTED {
        return DIVERTED;
    }
    this.stop = 0;
    let blocked = outcome != PERMIT;
    if !blocked && flags & PROVISIONAL != 0 {
        return PERMIT;
    }
    total(layer, blocked);
    let told = if blocked { flags } else { flags & !FAIL_SOCKET };
    // what was blocked has no flow, unless it had one before
    let flow = if blocked && flags & OLD_FLOW == 0 { 0 } else { flow };
    if this.is_recorded(layer) || told & FAIL_SOCKET != 0 {
        // SAFETY: as above.
        unsafe { report_event(work, layer as u32, socket, flow, told) };
    }
    if blocked
        && let Some(discard) = discard(layer)
        && this.is_active(discard)
    {
        // whatever is said there, it stays blocked
        // SAFETY: as above.
        unsafe {
            if classify(work, discard as u32) == LATE {
                this.close_late();
            }
            total(discard, this.state.arbitration.is_block());
            report_event(work, discard as u32, socket, flow, told & !FAIL_SOCKET);
        }
    }
    outcome
}

/// The class number of a program; `None` when the program is not known.
#[inline(always)]
fn application_class(label: &Label, generation: u32) -> Option<u32> {
    if !label.state.is_known() {
        return None;
    }
    let Some(file) = label.application() else { return Some(0) };
    // SAFETY: a valid map value.
    Some(APPLICATIONS.get_ptr(&file).map_or(0, |classes| unsafe { (*classes)[generation as usize & 1] }))
}

#[inline(always)]
fn total(layer: u16, block: bool) {
    if let Some(totals) = TOTALS.get_ptr_mut(layer as u32) {
        // SAFETY: a valid, aligned map value of this CPU, which is changed by atomic additions only.
        unsafe {
            let place = if block { &raw mut (*totals).blocked } else { &raw mut (*totals).permitted };
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(place, 1);
        }
    }
}

/// See [`Work::stop`].
pub const MAY_STOP: u64 = 1 << 32;

/// A walk has ended before a callout that has to be asked.
const STOPPED: u64 = 2;

struct Walk {
    work: *mut Work,
    base: u32,
}

/// One step of the walk: 1 ends it. More steps in one call would be a little faster, but the verifier follows each of them
/// by itself, and loading would take five times as long.
extern "C" fn one_step(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: `classify` hands over a valid walk, with memory that it has claimed.
    let (work, image) = unsafe {
        let walk = &*walk.cast::<Walk>();
        (&mut *walk.work, MapImage { base: walk.base })
    };
    match step(&image, &work.values, &mut work.state, &mut Silent) {
        Step::Again => return 0,
        Step::Done => {}
        Step::Callout if work.stop == MAY_STOP => {
            work.done = STOPPED;
            return 1;
        }
        // it cannot be asked here, or nobody is there
        Step::Callout => {
            if work.stop != 0 {
                count(work.stop as u32);
            }
            if work.state.pass_over(&image, &mut Silent) == Step::Again {
                return 0;
            }
        }
    }
    work.done = 1;
    1
}
