//! Building a filter: everything that can be known to be wrong with it alone is found here.

use crate::condition::ConditionError;
use crate::filter::{Action, CalloutKind, Filter, FilterFlags, Weight};
use crate::layer::{LayerFlags, LayerId};
use crate::object::{ObjectError, ObjectKind};
use crate::{Errno, FilterCondition, FwpError, Guid, MatchType, Value};

/// A filter in the making.
///
/// ```
/// use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
///
/// let filter = Filter::builder("no telnet", LayerId::ALE_AUTH_CONNECT_V4)
///     .when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(6))
///     .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(23))
///     .action(Action::Block)
///     .build()?;
/// assert_eq!(filter.sublayer, filter.layer.layer().default_sublayer);
/// # Ok::<(), openwfp_model::FilterError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FilterBuilder {
    key: Option<Guid>,
    name: String,
    description: String,
    flags: FilterFlags,
    disabled: bool,
    provider: Option<Guid>,
    layer: LayerId,
    sublayer: Option<Guid>,
    weight: Weight,
    conditions: Vec<FilterCondition>,
    action: Option<Action>,
    provider_context: Option<Guid>,
    errno: Option<Errno>,
}

impl FilterBuilder {
    pub(crate) fn new(name: String, layer: LayerId) -> FilterBuilder {
        FilterBuilder {
            key: None,
            name,
            description: String::new(),
            flags: FilterFlags::empty(),
            disabled: false,
            provider: None,
            layer,
            sublayer: None,
            weight: Weight::Automatic,
            conditions: Vec::new(),
            action: None,
            provider_context: None,
            errno: None,
        }
    }

    /// The key; without one, it is made from the provider, the layer and the name. Two filters that share these need keys.
    pub fn key(mut self, key: Guid) -> Self {
        self.key = Some(key);
        self
    }

    /// A description, for people.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Properties; `HAS_PROVIDER_CONTEXT` is added by itself. `DISABLED` is refused, as the platform refuses it from those
    /// who add filters: see [`FilterBuilder::disabled`].
    pub fn flags(mut self, flags: FilterFlags) -> Self {
        self.flags = flags;
        self
    }

    /// A filter that is kept, and not enforced: for those who speak for the platform, and for files, which may hold any
    /// filter that the platform shows.
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// The provider that the filter belongs to.
    pub fn provider(mut self, provider: Guid) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The sublayer; the default one of the layer, without.
    pub fn sublayer(mut self, sublayer: Guid) -> Self {
        self.sublayer = Some(sublayer);
        self
    }

    /// The order within the sublayer; automatic, without.
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// One more condition.
    pub fn condition(mut self, condition: FilterCondition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// More conditions.
    pub fn conditions(mut self, conditions: impl IntoIterator<Item = FilterCondition>) -> Self {
        self.conditions.extend(conditions);
        self
    }

    /// One more condition, from its parts.
    pub fn when(self, field: crate::FieldId, match_type: MatchType, value: Value) -> Self {
        self.condition(FilterCondition::new(field, match_type, value))
    }

    /// What happens when the conditions hold. Every filter needs one.
    pub fn action(mut self, action: Action) -> Self {
        self.action = Some(action);
        self
    }

    /// Data for its callout.
    pub fn provider_context(mut self, provider_context: Guid) -> Self {
        self.provider_context = Some(provider_context);
        self
    }

    /// The error that a refused bind or connect returns.
    pub fn errno(mut self, errno: Errno) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Everything that is wrong with the filter, for those who show it all at once.
    pub fn problems(&self) -> Vec<FilterError> {
        let text = ObjectKind::Filter.check_text(&self.name, &self.description).map_err(FilterError::from);
        let key = self.checked_key().map(drop).map_err(FilterError::from);
        let action = self.checked_action().map(drop);
        let conditions = self.conditions.iter().enumerate().map(|(index, condition)| {
            condition.check(self.layer.layer()).map_err(|error| FilterError::Condition { index, error })
        });
        [text, key, self.check_flags(), self.check_weight(), action]
            .into_iter()
            .chain(conditions)
            .filter_map(Result::err)
            .collect()
    }

    /// The filter, or the first thing that is wrong with it.
    pub fn build(self) -> Result<Filter, FilterError> {
        if let Some(error) = self.problems().into_iter().next() {
            return Err(error);
        }
        let mut flags = self.flags;
        flags.set(FilterFlags::HAS_PROVIDER_CONTEXT, self.provider_context.is_some());
        flags.set(FilterFlags::DISABLED, self.disabled);
        Ok(Filter {
            key: self.checked_key()?,
            action: self.checked_action()?,
            name: self.name,
            description: self.description,
            flags,
            provider: self.provider,
            layer: self.layer,
            sublayer: self.sublayer.unwrap_or(self.layer.layer().default_sublayer),
            weight: self.weight,
            conditions: self.conditions,
            provider_context: self.provider_context,
            errno: self.errno,
        })
    }

    fn checked_key(&self) -> Result<Guid, ObjectError> {
        let name = format!("{} at {}", self.name, self.layer);
        ObjectKind::Filter.key(self.key, self.provider, &name)
    }

    fn checked_action(&self) -> Result<Action, FilterError> {
        self.action.ok_or(FilterError::NoAction)
    }

    fn check_weight(&self) -> Result<(), FilterError> {
        match self.weight {
            Weight::Range(range) if range > 15 => Err(FilterError::WeightRange(range)),
            _ => Ok(()),
        }
    }

    fn check_flags(&self) -> Result<(), FilterError> {
        let kind = ObjectKind::Filter;
        kind.check_flags(self.flags)?;
        let has = |flag| self.flags.contains(flag);
        if has(FilterFlags::DISABLED) {
            return Err(ObjectError::FlagNotSettable { kind, flag: "DISABLED" }.into());
        }
        if has(FilterFlags::PERSISTENT | FilterFlags::BOOTTIME) {
            return Err(FilterError::PersistentAndBoottime);
        }
        if has(FilterFlags::BOOTTIME) && !self.layer.layer().flags.contains(LayerFlags::KERNEL) {
            return Err(FilterError::BoottimeInUserMode(self.layer));
        }
        if has(FilterFlags::HAS_PROVIDER_CONTEXT) && self.provider_context.is_none() {
            return Err(FilterError::NoProviderContext);
        }
        let may_block = |action| {
            let kinds = [CalloutKind::Terminating, CalloutKind::Unknown];
            matches!(action, Action::Callout { kind, .. } if kinds.contains(&kind))
        };
        if has(FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED) && !self.action.is_none_or(may_block) {
            return Err(FilterError::PermitWithoutCallout);
        }
        Ok(())
    }
}

/// What is wrong with a filter. Source of the rules: MS docs, `FWPM_FILTER0`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Its name, key or flags, as they may be wrong with any object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// There is no action.
    #[error("the filter has no action: permit, block, continue, or ask a callout")]
    NoAction,
    /// The range of the weight does not exist.
    #[error("the weight range {0} does not exist: use 0 to 15, or an exact weight of 64 bits")]
    WeightRange(u8),
    /// Both persistent and for boot.
    #[error("a filter cannot be both PERSISTENT and BOOTTIME: make two filters")]
    PersistentAndBoottime,
    /// For boot, at a layer that nobody classifies before the service runs.
    #[error("{0} is classified in user mode, where no filter can be BOOTTIME: leave the flag out")]
    BoottimeInUserMode(LayerId),
    /// The flag of provider contexts without one.
    #[error("HAS_PROVIDER_CONTEXT needs a provider context: give one, or leave the flag out")]
    NoProviderContext,
    /// The flag of unregistered callouts without a callout that may block.
    #[error("PERMIT_IF_CALLOUT_UNREGISTERED is for terminating and unknown callouts alone: leave it out")]
    PermitWithoutCallout,
    /// A condition is wrong.
    #[error("{error}")]
    Condition {
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: ConditionError,
    },
}

impl FilterError {
    /// The public error for it.
    pub fn fwp_error(&self) -> Option<FwpError> {
        match self {
            FilterError::Object(error) => error.fwp_error(),
            FilterError::NoAction => Some(FwpError::InvalidActionType),
            FilterError::WeightRange(_) => Some(FwpError::InvalidWeight),
            FilterError::BoottimeInUserMode(_) => Some(FwpError::IncompatibleLayer),
            FilterError::PersistentAndBoottime | FilterError::NoProviderContext | FilterError::PermitWithoutCallout => {
                Some(FwpError::InvalidFlags)
            }
            FilterError::Condition { error, .. } => error.fwp_error(),
        }
    }

    /// Which condition is wrong, counted from 0, where one is.
    pub fn condition_index(&self) -> Option<usize> {
        match self {
            FilterError::Condition { index, .. } => Some(*index),
            _ => None,
        }
    }
}
