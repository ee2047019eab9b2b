//! A policy that takes the place of another while programs decide by both.

use super::{Classes, CompileError, CompiledPolicy, Given, Groups, build};
use openwfp_model::{Filter, Guid, Policy, Sublayer};
use std::vec::Vec;

/// Compiles policies that take the place of `previous`, as its next generation.
///
/// What is decided is the same as if they were compiled alone. But no filter has an id that one of an earlier policy had,
/// so that an event names one filter whenever it is read; and classes and groups keep their numbers, so that the tables
/// which the kernel has beside the image serve both policies at once.
pub fn compile_after(previous: &CompiledPolicy, policies: &[&Policy]) -> Result<CompiledPolicy, CompileError> {
    compile_after_with(previous, policies, &[])
}

/// The same, with the keys of the callouts that are registered, whose index is their number in the image.
pub fn compile_after_with(
    previous: &CompiledPolicy,
    policies: &[&Policy],
    registered: &[Guid],
) -> Result<CompiledPolicy, CompileError> {
    let sublayers: Vec<Sublayer> = policies.iter().flat_map(|policy| &policy.sublayers).cloned().collect();
    let filters = policies.iter().flat_map(|policy| &policy.filters).cloned();
    compile_objects_after(previous, &sublayers, (previous.last_id + 1..).zip(filters).collect(), registered)
}

/// Compiles objects that take the place of `previous`, as its next generation; see [`compile_objects`](super::compile_objects)
/// and [`compile_after`]. Filters that stay may keep their ids.
pub fn compile_objects_after(
    previous: &CompiledPolicy,
    sublayers: &[Sublayer],
    filters: Vec<(u64, Filter)>,
    registered: &[Guid],
) -> Result<CompiledPolicy, CompileError> {
    let given = Given {
        classes: Classes::after(&previous.classes),
        groups: Groups::after(&previous.groups),
        last_id: previous.last_id,
    };
    build(previous.generation().wrapping_add(1), sublayers, filters, registered, given)
}

impl CompiledPolicy {
    /// The generation of the image.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.image.generation()
    }

    /// Gives bits to groups that later policies may name, as long as there are any left. The kernel can only tell what
    /// groups the owner of a socket was in if it was told their bits before the socket was made.
    pub fn know_groups(&mut self, gids: impl IntoIterator<Item = u32>) {
        for gid in gids {
            if self.groups.give(gid).is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
    use std::format;

    fn policy(conditions: &[(FieldId, Value)]) -> Policy {
        let filters = conditions.iter().map(|(field, value)| {
            let filter =
                Filter::builder(format!("{field} {value:?}"), LayerId::ALE_AUTH_CONNECT_V4).action(Action::Block);
            filter.when(*field, MatchType::Equal, value.clone()).build().unwrap()
        });
        filters.fold(Policy::builder(), |policy, filter| policy.filter(filter)).build().unwrap()
    }

    fn user(gid: u32) -> (FieldId, Value) {
        (FieldId::ALE_USER_ID, Value::Group(gid))
    }

    #[test]
    fn ids_and_generations_go_on() {
        let port = |port| (FieldId::IP_REMOTE_PORT, Value::Uint16(port));
        let first = compile(&[&policy(&[port(1), port(2)])]).unwrap();
        let none = compile_after(&first, &[]).unwrap();
        let third = compile_after(&none, &[&policy(&[port(1)])]).unwrap();
        assert_eq!([first.generation(), none.generation(), third.generation()], [1, 2, 3]);
        assert!(none.filters().is_empty());
        assert_eq!(third.filters()[0].id, 3, "1 and 2 were those of the first");
        assert!(third.filter(1).is_none());
    }

    #[test]
    fn a_group_keeps_its_bit() {
        let first = compile(&[&policy(&[user(10), user(20)])]).unwrap();
        let second = compile_after(&first, &[&policy(&[user(30)])]).unwrap();
        let third = compile_after(&second, &[&policy(&[user(20)])]).unwrap();
        assert_eq!(first.groups().iter().collect::<Vec<_>>(), [(10, 0), (20, 1)]);
        assert_eq!(second.groups().iter().collect::<Vec<_>>(), [(30, 2)]);
        assert_eq!(third.groups().iter().collect::<Vec<_>>(), [(20, 1)]);
        assert_eq!(third.groups().given().count(), 3);
    }

    #[test]
    fn groups_can_be_made_known_as_long_as_there_are_bits() {
        let mut first = compile(&[&policy(&[user(10)])]).unwrap();
        first.know_groups(0..1000);
        assert_eq!(first.groups().iter().collect::<Vec<_>>(), [(10, 0)]);
        assert_eq!(first.groups().given().count(), Groups::LIMIT);
        assert!(compile_after(&first, &[&policy(&[user(5), user(10)])]).is_ok());
        let error = compile_after(&first, &[&policy(&[user(5), user(1000)])]).unwrap_err();
        assert_eq!(error, CompileError::TooManyGroups { gid: 1000 });
    }
}
