//! The objects of the Windows Filtering Platform as typed Rust, with Linux in mind.
//!
//! Traffic meets **layers** ([`Layer`], [`LayerId`]): the fixed points where it is classified, 99 of
//! them. Each has **fields** ([`LayerField`], [`FieldId`]): what is known there about the traffic,
//! such as the remote address or the user, each with its type ([`DataType`], [`FieldType`]). Layers
//! and fields are built in; nobody adds to them. What Linux has beyond them are fields of ours: [`extension`].
//!
//! A **condition** ([`FilterCondition`]) compares a field ([`MatchType`]) with a [`Value`]. A
//! **filter** ([`Filter`]) stands at one layer, in one sublayer; when its conditions hold, its
//! [`Action`] happens. Its [`Weight`] orders it among the filters of its sublayer; [`weight`]
//! computes it where none is given.
//!
//! **Sublayers** ([`Sublayer`]) keep the filters of different programs apart and say who is asked
//! first. A **callout** ([`Callout`]) is code that a filter names as its action, and a **provider
//! context** ([`ProviderContext`]) is data that the filter hands to it. A **provider**
//! ([`Provider`]) is whoever owns all of these. Some objects always exist: [`builtin`].
//!
//! A [`Policy`] is a set of such objects that fit together, and [`policy_file`] reads one from a
//! file. Every object is made by a builder that checks what can be known to be wrong with it, so
//! that whoever holds an object need not ask again. What is wrong is an error of its own for each
//! cause, and names the public error of the platform ([`FwpError`]) where there is one.
//!
//! Users are told apart by [`security`]: identifiers, access control lists, and their text.
//!
//! ```
//! use openwfp_model::{Action, FieldId, Filter, Layer, LayerId, MatchType, Policy, Value};
//!
//! // A family name stands for a layer of each version of IP.
//! let layers = Layer::family("ALE_AUTH_CONNECT");
//! assert_eq!(layers, [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]);
//!
//! let mut policy = Policy::builder();
//! for layer in layers {
//!     let filter = Filter::builder("curl may not speak plain HTTP", layer)
//!         .when(FieldId::ALE_APP_ID, MatchType::Equal, Value::Application("/usr/bin/curl".into()))
//!         .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(80))
//!         .action(Action::Block)
//!         .build()?;
//!     policy = policy.filter(filter);
//! }
//! assert_eq!(policy.build().map(|policy| policy.filters.len()), Ok(2));
//!
//! let wrong = Filter::builder("ports have 16 bits", LayerId::ALE_AUTH_CONNECT_V4)
//!     .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint32(80))
//!     .action(Action::Block)
//!     .build()
//!     .unwrap_err();
//! assert_eq!(wrong.fwp_error(), Some(openwfp_model::FwpError::TypeMismatch));
//! # Ok::<(), openwfp_model::FilterError>(())
//! ```
//!
//! The tables of layers, fields, flags, errors and built-in objects are generated from the public
//! constants of the platform and from what a real machine shows. The documentation of the platform
//! is the source of the rules; where ours differ or add to them, the item says "ours".

pub mod builtin;
mod callout;
mod condition;
mod data;
mod data_type;
mod errno;
pub mod extension;
mod field;
mod field_values;
mod filter;
mod filter_builder;
mod fwp_error;
mod generated;
mod guid;
mod layer;
mod match_type;
pub mod names;
mod object;
mod policy;
pub mod policy_file;
mod provider;
mod provider_context;
#[cfg(test)]
mod public_numbers;
pub mod security;
mod sublayer;
mod value;
pub mod weight;

pub use callout::{Callout, CalloutBuilder, CalloutFlags, CalloutServer};
pub use condition::{ConditionError, FilterCondition};
pub use data::Data;
pub use data_type::{DataType, FieldType};
pub use errno::Errno;
pub use field::FieldId;
pub use field_values::NamedValue;
pub use filter::{Action, CalloutKind, Filter, FilterFlags, Weight};
pub use filter_builder::{FilterBuilder, FilterError};
pub use fwp_error::FwpError;
pub use generated::condition_flags::{ConditionFlags, L2Flags, ReauthorizeReason, SocketProperty};
pub use guid::{Guid, GuidError};
pub use layer::{IpVersion, Layer, LayerField, LayerFlags, LayerId};
pub use match_type::MatchType;
pub use object::{ObjectError, ObjectKind};
pub use policy::{Policy, PolicyBuilder, PolicyError};
pub use provider::{Provider, ProviderBuilder, ProviderFlags};
pub use provider_context::{ProviderContext, ProviderContextBuilder, ProviderContextFlags};
pub use security::{SecurityDescriptor, Sid};
pub use sublayer::{Sublayer, SublayerBuilder, SublayerFlags};
pub use value::Value;
