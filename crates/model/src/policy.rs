//! Policies: objects that belong together, checked as a whole.

use std::collections::{HashMap, HashSet};

use crate::object::ObjectKind;
use crate::{
    Action, Callout, CalloutFlags, Filter, FilterFlags, FwpError, Guid, LayerId, Provider, ProviderContext,
    ProviderContextFlags, ProviderFlags, Sublayer, SublayerFlags, builtin,
};

/// The objects of one provider: what a policy file holds.
///
/// Made by [`Policy::builder`], which checks that the objects fit together. The order of sublayers
/// and filters is the one in which they were added, which decides between equal weights.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Policy {
    /// The provider that the objects belong to.
    pub provider: Option<Provider>,
    /// The sublayers.
    pub sublayers: Vec<Sublayer>,
    /// The filters.
    pub filters: Vec<Filter>,
    /// The callouts.
    pub callouts: Vec<Callout>,
    /// The provider contexts.
    pub provider_contexts: Vec<ProviderContext>,
}

impl Policy {
    /// Begins a policy.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// The sublayer of that key, the policy's own or a built-in one.
    pub fn sublayer(&self, key: Guid) -> Option<Sublayer> {
        let own = self.sublayers.iter().find(|sublayer| sublayer.key == key).cloned();
        own.or_else(|| builtin::sublayer(key).map(Sublayer::from))
    }
}

/// A policy in the making.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PolicyBuilder {
    policy: Policy,
    elsewhere: HashSet<Guid>,
}

impl PolicyBuilder {
    /// The provider that the objects belong to.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.policy.provider = Some(provider);
        self
    }

    /// One more sublayer.
    pub fn sublayer(mut self, sublayer: Sublayer) -> Self {
        self.policy.sublayers.push(sublayer);
        self
    }

    /// One more filter.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.policy.filters.push(filter);
        self
    }

    /// One more callout.
    pub fn callout(mut self, callout: Callout) -> Self {
        self.policy.callouts.push(callout);
        self
    }

    /// One more provider context.
    pub fn provider_context(mut self, provider_context: ProviderContext) -> Self {
        self.policy.provider_contexts.push(provider_context);
        self
    }

    /// The key of an object that exists elsewhere, so that objects may refer to it although the
    /// policy does not hold it. Nothing is checked about such an object.
    pub fn elsewhere(mut self, key: Guid) -> Self {
        self.elsewhere.insert(key);
        self
    }

    /// The policy, or everything that is wrong between its objects.
    pub fn build(self) -> Result<Policy, Vec<PolicyError>> {
        let errors = self.problems();
        match errors.is_empty() {
            true => Ok(self.policy),
            false => Err(errors),
        }
    }

    fn problems(&self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        let mut index = Index::new();
        for object in self.objects() {
            errors.extend(self.check_provider(&object));
            if let Some(first) = index.get(&(object.kind, object.key)) {
                errors.push(PolicyError::DuplicateKey {
                    kind: object.kind,
                    first: first.name.to_owned(),
                    second: object.name.to_owned(),
                    key: object.key,
                });
            } else {
                index.insert((object.kind, object.key), object);
            }
        }
        if self.policy.sublayers.len() > MAX_SUBLAYERS {
            errors.push(PolicyError::TooManySublayers(self.policy.sublayers.len()));
        }
        for filter in &self.policy.filters {
            let references = references(filter);
            errors.extend(references.filter_map(|to| self.check_reference(filter, to, &index)));
            errors.extend(check_callout_layer(filter, &index));
        }
        errors
    }

    fn objects(&self) -> impl Iterator<Item = Object<'_>> {
        let policy = &self.policy;
        let sublayers = policy.sublayers.iter().map(|s| Object {
            kind: ObjectKind::Sublayer,
            key: s.key,
            name: &s.name,
            provider: s.provider,
            persistent: s.flags.contains(SublayerFlags::PERSISTENT),
            layer: None,
        });
        let callouts = policy.callouts.iter().map(|c| Object {
            kind: ObjectKind::Callout,
            key: c.key,
            name: &c.name,
            provider: c.provider,
            persistent: c.flags.contains(CalloutFlags::PERSISTENT),
            layer: c.layer,
        });
        let contexts = policy.provider_contexts.iter().map(|c| Object {
            kind: ObjectKind::ProviderContext,
            key: c.key,
            name: &c.name,
            provider: c.provider,
            persistent: c.flags.contains(ProviderContextFlags::PERSISTENT),
            layer: None,
        });
        let filters = policy.filters.iter().map(|f| Object {
            kind: ObjectKind::Filter,
            key: f.key,
            name: &f.name,
            provider: f.provider,
            persistent: outlives_service(f),
            layer: Some(f.layer),
        });
        sublayers.chain(callouts).chain(contexts).chain(filters)
    }

    fn check_provider(&self, object: &Object<'_>) -> Option<PolicyError> {
        let key = object.provider?;
        if self.elsewhere.contains(&key) || builtin::provider(key).is_some() {
            return None;
        }
        match &self.policy.provider {
            Some(provider) if provider.key == key => {
                let persistent = provider.flags.contains(ProviderFlags::PERSISTENT);
                (object.persistent && !persistent).then(|| PolicyError::Lifetime {
                    kind: object.kind,
                    name: object.name.to_owned(),
                    of: ObjectKind::Provider,
                    of_name: provider.name.clone(),
                })
            }
            _ => Some(PolicyError::NotFound {
                kind: object.kind,
                name: object.name.to_owned(),
                of: ObjectKind::Provider,
                key,
            }),
        }
    }

    fn check_reference(
        &self,
        filter: &Filter,
        (kind, key): (ObjectKind, Guid),
        index: &Index<'_>,
    ) -> Option<PolicyError> {
        if self.elsewhere.contains(&key) || is_built_in(kind, key) {
            return None;
        }
        let name = filter.name.clone();
        match index.get(&(kind, key)) {
            None => Some(PolicyError::NotFound { kind: ObjectKind::Filter, name, of: kind, key }),
            Some(object) if outlives_service(filter) && !object.persistent => {
                let of_name = object.name.to_owned();
                Some(PolicyError::Lifetime { kind: ObjectKind::Filter, name, of: kind, of_name })
            }
            Some(_) => None,
        }
    }
}

/// The greatest number of sublayers. Source: MS docs, `FWP_E_TOO_MANY_SUBLAYERS`.
const MAX_SUBLAYERS: usize = 1 << 16;

/// What is asked of an object of any kind.
struct Object<'a> {
    kind: ObjectKind,
    key: Guid,
    name: &'a str,
    provider: Option<Guid>,
    persistent: bool,
    layer: Option<LayerId>,
}

type Index<'a> = HashMap<(ObjectKind, Guid), Object<'a>>;

/// What a filter refers to.
fn references(filter: &Filter) -> impl Iterator<Item = (ObjectKind, Guid)> {
    let callout = match filter.action {
        Action::Callout { callout, .. } => Some((ObjectKind::Callout, callout)),
        _ => None,
    };
    let context = filter.provider_context.map(|key| (ObjectKind::ProviderContext, key));
    let sublayer = Some((ObjectKind::Sublayer, filter.sublayer));
    [sublayer, callout, context].into_iter().flatten()
}

/// Boot-time filters are kept on disk just as persistent ones.
fn outlives_service(filter: &Filter) -> bool {
    filter.flags.intersects(FilterFlags::PERSISTENT | FilterFlags::BOOTTIME)
}

fn is_built_in(kind: ObjectKind, key: Guid) -> bool {
    match kind {
        ObjectKind::Provider => builtin::provider(key).is_some(),
        ObjectKind::ProviderContext => builtin::provider_context(key).is_some(),
        ObjectKind::Sublayer => builtin::sublayer(key).is_some(),
        ObjectKind::Callout => builtin::callout(key).is_some(),
        ObjectKind::Filter => false,
    }
}

fn check_callout_layer(filter: &Filter, index: &Index<'_>) -> Option<PolicyError> {
    let Action::Callout { callout, .. } = filter.action else { return None };
    let callout = index.get(&(ObjectKind::Callout, callout))?;
    let layer = callout.layer.filter(|layer| *layer != filter.layer)?;
    Some(PolicyError::CalloutLayer {
        filter: filter.name.clone(),
        callout: callout.name.to_owned(),
        layer,
        filter_layer: filter.layer,
    })
}

/// What is wrong between the objects of a policy. Source of the rules: MS docs, Object management.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Two objects of one kind have the same key.
    #[error(
        "the {kind}s `{first}` and `{second}` have the same key {key}: \
         give one of them another name or key"
    )]
    DuplicateKey {
        /// Their kind.
        kind: ObjectKind,
        /// The name of the first.
        first: String,
        /// The name of the second.
        second: String,
        /// The key.
        key: Guid,
    },
    /// An object refers to one that does not exist.
    #[error("the {kind} `{name}` refers to the {of} {key}, which does not exist: add it to the policy")]
    NotFound {
        /// The kind of the object.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// The kind of what is missing.
        of: ObjectKind,
        /// The key of what is missing.
        key: Guid,
    },
    /// An object refers to one that does not live as long.
    #[error(
        "the persistent {kind} `{name}` refers to the {of} `{of_name}`, which is not persistent: \
         make it persistent too"
    )]
    Lifetime {
        /// The kind of the object.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// The kind of what it refers to.
        of: ObjectKind,
        /// The name of what it refers to.
        of_name: String,
    },
    /// A filter names a callout that is made for another layer.
    #[error(
        "the callout `{callout}` is for {layer} alone, and the filter `{filter}` is at \
         {filter_layer}: move the filter, or make a callout for its layer"
    )]
    CalloutLayer {
        /// The name of the filter.
        filter: String,
        /// The name of the callout.
        callout: String,
        /// The layer of the callout.
        layer: LayerId,
        /// The layer of the filter.
        filter_layer: LayerId,
    },
    /// There are more sublayers than may be.
    #[error("there are {0} sublayers, and {MAX_SUBLAYERS} may be: merge some")]
    TooManySublayers(usize),
}

impl PolicyError {
    /// The public error for it.
    pub fn fwp_error(&self) -> Option<FwpError> {
        Some(match self {
            PolicyError::DuplicateKey { .. } => FwpError::AlreadyExists,
            PolicyError::NotFound { of, .. } => match of {
                ObjectKind::Provider => FwpError::ProviderNotFound,
                ObjectKind::ProviderContext => FwpError::ProviderContextNotFound,
                ObjectKind::Sublayer => FwpError::SublayerNotFound,
                ObjectKind::Callout => FwpError::CalloutNotFound,
                ObjectKind::Filter => FwpError::FilterNotFound,
            },
            PolicyError::Lifetime { .. } => FwpError::LifetimeMismatch,
            PolicyError::CalloutLayer { .. } => FwpError::IncompatibleLayer,
            PolicyError::TooManySublayers(_) => FwpError::TooManySublayers,
        })
    }
}
