//! From policies to registered callouts.

use openwfp_engine::{CompileError, CompiledPolicy, compile_objects};
use openwfp_model::{Action, CalloutServer, Filter as PolicyFilter, Guid, Policy, builtin as objects};

use crate::builtin::{self, SettingsError};
use crate::{AddFilterError, Filter, ProviderContext, RegisterError, Registry};

/// Why the callouts of policies cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no built-in callout of that name.
    #[error("the callout `{callout}` uses `{uses}`, which is no built-in callout{}", hint(.nearest))]
    Unknown {
        /// The callout of the policy.
        callout: String,
        /// What it uses.
        uses: String,
        /// The nearest name.
        nearest: Option<&'static str>,
    },
    /// Its settings are wrong.
    #[error("the settings of the callout `{callout}`: {error}")]
    Settings {
        /// The callout of the policy.
        callout: String,
        /// What is wrong.
        error: SettingsError,
    },
    /// It cannot be registered.
    #[error("the callout `{callout}` is not registered: {error}")]
    Register {
        /// The callout of the policy.
        callout: String,
        /// Why.
        error: RegisterError,
    },
    /// A filter cannot be added.
    #[error("the filter `{filter}`: {error}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        error: AddFilterError,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(|| ": see `wfp callouts`".to_owned(), |name| format!(": did you mean `{name}`?"))
}

/// A callout of a policy that nobody answers for in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The callout of the policy.
    pub callout: String,
    /// The executable that serves it, if one does.
    pub host: Option<String>,
}

/// Registers the built-in callouts that policies use, under the keys of the policies, and adds the filters that name callouts, with the
/// ids that [`compile`] gives them. Also tells of the callouts that are served elsewhere.
///
/// # Errors
/// Everything that is wrong.
pub fn load(registry: &Registry, policies: &[&Policy]) -> Result<Vec<Absent>, Vec<LoadError>> {
    let (mut absent, mut errors) = (Vec::new(), Vec::new());
    for callout in policies.iter().flat_map(|policy| &policy.callouts) {
        let name = || callout.name.clone();
        let uses = match &callout.server {
            CalloutServer::BuiltIn(uses) => uses,
            CalloutServer::Host { path, .. } => {
                absent.push(Absent { callout: name(), host: Some(path.clone()) });
                continue;
            }
            CalloutServer::Registered => {
                absent.push(Absent { callout: name(), host: None });
                continue;
            }
        };
        let Some(found) = builtin::find(uses) else {
            errors.push(LoadError::Unknown { callout: name(), uses: uses.clone(), nearest: builtin::nearest(uses) });
            continue;
        };
        match found.make(&callout.settings) {
            Err(error) => errors.push(LoadError::Settings { callout: name(), error }),
            Ok(made) => {
                if let Err(error) = registry.register_as(Some((callout.key, &callout.name)), made) {
                    errors.push(LoadError::Register { callout: name(), error });
                }
            }
        }
    }
    let filters = policies.iter().flat_map(|policy| policy.filters.iter().map(move |filter| (*policy, filter)));
    for (id, (policy, filter)) in (1..).zip(filters) {
        let Some((callout, made)) = filter_of(id, policy, filter) else { continue };
        if let Err(error) = registry.add_filter(callout, made) {
            errors.push(LoadError::Filter { filter: filter.name.clone(), error });
        }
    }
    if errors.is_empty() { Ok(absent) } else { Err(errors) }
}

/// A filter as its callout sees it, and the key of the callout; none where it names none.
#[must_use]
pub fn filter_of(id: u64, policy: &Policy, filter: &PolicyFilter) -> Option<(Guid, Filter)> {
    let Action::Callout { callout, kind } = filter.action else { return None };
    let mut made = Filter::new(id, filter.key, &filter.name, filter.layer, kind)
        .with_flags(filter.flags)
        .in_sublayer(filter.sublayer, filter.effective_weight());
    if let Some(key) = filter.provider_context {
        let own = policy.provider_contexts.iter().find(|context| context.key == key);
        made = match own {
            Some(context) => {
                let (name, data) = (context.name.clone(), context.data.clone());
                made.with_context(ProviderContext { key, name, data })
            }
            None => made.with_context(ProviderContext {
                key,
                name: objects::provider_context(key).map_or_else(String::new, |found| found.name.to_owned()),
                data: openwfp_model::Data::default(),
            }),
        };
    }
    Some((callout, made))
}

/// Compiles policies, with the callouts of a registry; as [`openwfp_engine::compile`] does without. A registry of callouts that [`load`]
/// put there knows their filters by the same ids.
///
/// # Errors
/// As the compiler says.
pub fn compile(registry: &Registry, policies: &[&Policy]) -> Result<CompiledPolicy, CompileError> {
    let sublayers: Vec<_> = policies.iter().flat_map(|policy| &policy.sublayers).cloned().collect();
    let filters = policies.iter().flat_map(|policy| &policy.filters).cloned();
    compile_objects(1, &sublayers, (1..).zip(filters).collect(), &registry.keys())
}
