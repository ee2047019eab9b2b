//! Sublayers, callouts, providers and provider contexts, and what may refer to what.

use openwfp_model::{
    Action, Callout, CalloutFlags, CalloutKind, CalloutServer, Data, Filter, FilterBuilder, FilterFlags, FwpError,
    Guid, LayerId, ObjectError, Policy, PolicyBuilder, Provider, ProviderContext, ProviderContextFlags, ProviderFlags,
    Sublayer, SublayerFlags, builtin::sublayer_keys,
};

const V4: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

fn filter(name: &str) -> FilterBuilder {
    Filter::builder(name, V4).action(Action::Block)
}

fn asking(name: &str, callout: Guid) -> FilterBuilder {
    Filter::builder(name, V4).action(Action::Callout { callout, kind: CalloutKind::Unknown })
}

#[test]
fn objects_have_keys_of_their_names_and_providers() {
    let acme = Provider::builder("acme").build().unwrap();
    let key = |name: &str| Sublayer::builder(name).build().unwrap().key;
    assert_eq!(key("web"), key("web"));
    assert_ne!(key("web"), key("mail"));
    assert_ne!(key("web"), Sublayer::builder("web").provider(acme.key).build().unwrap().key);
    assert_ne!(key("web"), Callout::builder("web").build().unwrap().key, "kinds have keys of their own");
    let given = Guid::named("test", "given");
    assert_eq!(Sublayer::builder("web").key(given).weight(7).build().unwrap().key, given);
}

#[test]
fn objects_that_are_refused() {
    let built_in = sublayer_keys::UNIVERSAL;
    let unknown = 1 << 10;
    let callout = |server| Callout::builder("c").server(server).build().map(drop);
    let host = |path: &str| callout(CalloutServer::Host { path: path.to_owned(), user: None });
    let cases: Vec<(&str, Result<(), ObjectError>, Option<FwpError>)> = vec![
        ("a sublayer without name", Sublayer::builder("").build().map(drop), Some(FwpError::NullDisplayName)),
        ("a provider without name", Provider::builder("\t").build().map(drop), Some(FwpError::NullDisplayName)),
        ("a callout without name", Callout::builder("").build().map(drop), Some(FwpError::NullDisplayName)),
        (
            "a context without name",
            ProviderContext::builder("", Data::Integer(1)).build().map(drop),
            Some(FwpError::NullDisplayName),
        ),
        ("an unprintable name", Provider::builder("a\0").build().map(drop), Some(FwpError::InvalidParameter)),
        (
            "the key of nothing",
            Sublayer::builder("s").key(Guid::ZERO).build().map(drop),
            Some(FwpError::InvalidParameter),
        ),
        ("a built-in key", Sublayer::builder("s").key(built_in).build().map(drop), Some(FwpError::AlreadyExists)),
        (
            "unknown flags",
            Sublayer::builder("s").flags(SublayerFlags::from_bits_retain(unknown)).build().map(drop),
            Some(FwpError::InvalidFlags),
        ),
        (
            "a callout that says it is registered",
            Callout::builder("c").flags(CalloutFlags::REGISTERED).build().map(drop),
            Some(FwpError::InvalidFlags),
        ),
        (
            "a provider that says it is disabled",
            Provider::builder("p").flags(ProviderFlags::DISABLED).build().map(drop),
            Some(FwpError::InvalidFlags),
        ),
        (
            "a context that says it is downlevel",
            ProviderContext::builder("c", Data::default()).flags(ProviderContextFlags::DOWNLEVEL).build().map(drop),
            Some(FwpError::InvalidFlags),
        ),
        ("a host by a relative path", host("callouts"), None),
    ];
    for (what, result, expected) in cases {
        let error = result.expect_err(what);
        assert_eq!(error.fwp_error(), expected, "{what}: {error}");
    }
    assert_eq!(host("/usr/libexec/callouts"), Ok(()));
}

/// A policy with one object of each kind, all of them persistent.
fn whole() -> (PolicyBuilder, Provider, Sublayer, Callout, ProviderContext) {
    let provider = Provider::builder("acme").flags(ProviderFlags::PERSISTENT).build().unwrap();
    let flags = SublayerFlags::PERSISTENT;
    let sublayer = Sublayer::builder("web").provider(provider.key).flags(flags).build().unwrap();
    let flags = CalloutFlags::PERSISTENT;
    let callout = Callout::builder("log").provider(provider.key).flags(flags).layer(V4).build().unwrap();
    let context = ProviderContext::builder("limits", Data::Integer(7)).provider(provider.key);
    let context = context.flags(ProviderContextFlags::PERSISTENT).build().unwrap();
    let builder = Policy::builder()
        .provider(provider.clone())
        .sublayer(sublayer.clone())
        .callout(callout.clone())
        .provider_context(context.clone());
    (builder, provider, sublayer, callout, context)
}

#[test]
fn objects_that_fit_together() {
    let (builder, provider, sublayer, callout, context) = whole();
    let filter = asking("ask", callout.key)
        .sublayer(sublayer.key)
        .provider(provider.key)
        .provider_context(context.key)
        .flags(FilterFlags::PERSISTENT)
        .build()
        .unwrap();
    let policy = builder.filter(filter).build().unwrap();
    assert_eq!(policy.sublayer(sublayer.key), Some(sublayer));
    assert_eq!(policy.sublayer(sublayer_keys::UNIVERSAL).map(|built_in| built_in.weight), Some(0x8000));
    assert_eq!(policy.sublayer(Guid::ZERO), None);
    assert_eq!(Policy::builder().build(), Ok(Policy::default()));
}

/// MS docs: Object management, associations and lifetimes.
#[test]
fn policies_that_are_refused() {
    let nothing = Guid::named("test", "nothing");
    let persistent = FilterFlags::PERSISTENT;
    let dynamic_sublayer = || Sublayer::builder("dynamic").build().unwrap();
    let dynamic_callout = || Callout::builder("dynamic").build().unwrap();
    let dynamic_provider = || Provider::builder("dynamic").build().unwrap();
    let dynamic_context = || ProviderContext::builder("dynamic", Data::default()).build().unwrap();
    let with = |filter: FilterBuilder| whole().0.filter(filter.build().unwrap());
    let other_layer = LayerId::ALE_AUTH_CONNECT_V6;
    let cases = [
        ("two filters of one key", with(filter("a")).filter(filter("a").build().unwrap()), FwpError::AlreadyExists),
        ("two sublayers of one key", whole().0.sublayer(whole().2), FwpError::AlreadyExists),
        ("two callouts of one key", whole().0.callout(whole().3), FwpError::AlreadyExists),
        ("two contexts of one key", whole().0.provider_context(whole().4), FwpError::AlreadyExists),
        ("no such sublayer", with(filter("a").sublayer(nothing)), FwpError::SublayerNotFound),
        ("no such callout", with(asking("a", nothing)), FwpError::CalloutNotFound),
        ("no such context", with(filter("a").provider_context(nothing)), FwpError::ProviderContextNotFound),
        ("no such provider", with(filter("a").provider(nothing)), FwpError::ProviderNotFound),
        (
            "a sublayer that ends first",
            with(filter("a").sublayer(dynamic_sublayer().key).flags(persistent)).sublayer(dynamic_sublayer()),
            FwpError::LifetimeMismatch,
        ),
        (
            "a callout that ends first",
            with(asking("a", dynamic_callout().key).flags(FilterFlags::BOOTTIME)).callout(dynamic_callout()),
            FwpError::LifetimeMismatch,
        ),
        (
            "a context that ends first",
            with(filter("a").provider_context(dynamic_context().key).flags(persistent))
                .provider_context(dynamic_context()),
            FwpError::LifetimeMismatch,
        ),
        (
            "a provider that ends first",
            Policy::builder()
                .provider(dynamic_provider())
                .filter(filter("a").provider(dynamic_provider().key).flags(persistent).build().unwrap()),
            FwpError::LifetimeMismatch,
        ),
        (
            "a callout for another layer",
            with(
                Filter::builder("a", other_layer)
                    .action(Action::Callout { callout: whole().3.key, kind: CalloutKind::Terminating }),
            ),
            FwpError::IncompatibleLayer,
        ),
    ];
    for (what, builder, expected) in cases {
        let errors = builder.build().expect_err(what);
        let found: Vec<_> = errors.iter().map(|error| error.fwp_error()).collect();
        assert_eq!(found, [Some(expected)], "{what}: {errors:?}");
    }
}

#[test]
fn what_exists_elsewhere_is_taken_on_trust() {
    let elsewhere = Guid::named("test", "elsewhere");
    let builder = || Policy::builder().filter(filter("a").sublayer(elsewhere).build().unwrap());
    assert!(builder().build().is_err());
    assert!(builder().elsewhere(elsewhere).build().is_ok());
}
