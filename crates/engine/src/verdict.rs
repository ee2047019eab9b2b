//! What a classification comes to.

/// Permit or block, or that it cannot be said yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The event may go on.
    Permit,
    /// It may not.
    Block,
    /// A value that can change the outcome is not known yet: ask again where it is known.
    Late,
}

/// Why the action is what it is, where the deciding filter's own action does not say it.
///
/// The numbers stand in events of the kernel.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A filter decided, or no filter matched.
    #[default]
    None = 0,
    /// A callout blocked without the right to write the action.
    Veto = 1,
    /// A filter tests a value that exists and could not be read.
    Unreadable = 2,
    /// The callout that the deciding filter names is not registered.
    CalloutUnregistered = 3,
    /// The image holds a cell that cannot stand where it was met, or ends too early.
    BadCell = 4,
    /// The walk took more steps than the bound.
    Bound = 5,
    /// The image is of another generation or format than the shim was told.
    UnknownGeneration = 6,
    /// A look-up that the shim needs failed, or no scratch memory was free.
    LookupFailed = 7,
    /// The flow to which the packet belongs was refused before.
    FlowBlocked = 8,
}

impl Reason {
    /// The name that events and explanations use; empty for [`Reason::None`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Veto => "veto",
            Self::Unreadable => "unreadable",
            Self::CalloutUnregistered => "callout-unregistered",
            Self::BadCell => "bad-cell",
            Self::Bound => "bound",
            Self::UnknownGeneration => "unknown-generation",
            Self::LookupFailed => "lookup-failed",
            Self::FlowBlocked => "flow-blocked",
        }
    }

    /// The reason of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Veto,
            2 => Self::Unreadable,
            3 => Self::CalloutUnregistered,
            4 => Self::BadCell,
            5 => Self::Bound,
            6 => Self::UnknownGeneration,
            7 => Self::LookupFailed,
            8 => Self::FlowBlocked,
            _ => return None,
        })
    }
}

/// The outcome of one classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Permit, block or late.
    pub action: Action,
    /// Whether a lower sublayer could still have changed it: false for a hard permit or a hard block.
    pub soft: bool,
    /// Why, where the filter's action does not say it.
    pub reason: Reason,
    /// The errno that the deciding filter wants a refused call to return; 0: the default.
    pub errno: u16,
    /// The id of the filter that decided; 0: none did.
    pub filter: u64,
    /// The number of the deciding filter's sublayer among those of the layer.
    pub sublayer: u32,
    /// How many steps the walk took.
    pub steps: u32,
}

impl Verdict {
    /// A hard block without a filter, for what the engine or a shim cannot decide.
    #[must_use]
    pub const fn closed(reason: Reason) -> Self {
        Self { action: Action::Block, soft: false, reason, errno: 0, filter: 0, sublayer: 0, steps: 0 }
    }
}
