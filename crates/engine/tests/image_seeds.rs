//! The fuzz target for images, run over its seeds, over images of random policies, and over damaged ones.
//!
//! Two of the seeds are policies of the tree, as they are compiled.
//! `BLESS=1 cargo test -p openwfp-engine --test image_seeds` writes them anew when images have changed.

#[path = "../../../fuzz/bodies/image.rs"]
mod body;
#[path = "common/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "common/random.rs"]
#[allow(dead_code)]
mod random;

use openwfp_engine::{
    Action, CompiledPolicy, Event, EventValue, PolicyImage, Silent, Verdict, classify, compile, compile_objects,
};
use openwfp_model::{
    FieldId, LayerId, Value,
    policy_file::{self, NoMachine},
};
use std::{fs, path::PathBuf};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

fn tree(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A policy of the tree, compiled; the seed of that name says the same.
fn compiled(name: &str) -> (CompiledPolicy, PolicyImage) {
    let path = tree("policies").join(name).with_extension("toml");
    let text = fs::read_to_string(path).expect("the policy is in the tree");
    let read = policy_file::read(name, &text, &NoMachine).unwrap_or_else(|wrong| panic!("{wrong}"));
    let compiled = compile(&[&read.policy]).expect("a small policy");
    let seed = tree("fuzz/seeds/image").join(name);
    let bytes = compiled.image().to_bytes();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&seed, &bytes).expect("the tree can be written");
    }
    let seed = fs::read(seed).expect("the seed is in the tree");
    assert!(seed == bytes, "{name}: images have changed; write the seeds anew, with BLESS=1");
    let image = PolicyImage::from_bytes(&seed).expect("an image");
    (compiled, image)
}

/// A connect to an address; the protocol is UDP, the port 53.
fn connect(address: &str) -> Event {
    Event::new(CONNECT)
        .with(FieldId::IP_REMOTE_ADDRESS, Value::v4_address(address.parse().expect("an address")))
        .with(FieldId::IP_PROTOCOL, Value::Uint8(17))
        .with(FieldId::IP_REMOTE_PORT, Value::Uint16(53))
        .with(FieldId::FLAGS, Value::Uint32(0))
}

/// What the image says of an event, and the name of the filter that says so.
fn asked<'a>(policy: &'a CompiledPolicy, image: &PolicyImage, event: &Event) -> (Action, &'a str) {
    let verdict: Verdict = classify(image.cells(), CONNECT.get(), &policy.values(event), &mut Silent);
    (verdict.action, policy.filter(verdict.filter).map_or("", |filter| &filter.filter.name))
}

#[test]
fn seeds_of_policies_are_read_and_decide() {
    let (policy, image) = compiled("allow-list-by-address");
    for (address, expected) in [
        ("10.1.2.3", (Action::Permit, "our networks")),
        ("192.0.2.255", (Action::Permit, "our networks")),
        ("9.9.9.9", (Action::Permit, "the resolver, for names")),
        ("9.9.9.10", (Action::Block, "no other network")),
    ] {
        assert_eq!(asked(&policy, &image, &connect(address)), expected, "{address}");
    }
    let (policy, image) = compiled("kill-switch-vpn");
    let through = |interface| {
        let mut event = connect("203.0.113.5");
        event.values.insert(FieldId::INTERFACE_TYPE, interface);
        event
    };
    for (event, expected) in [
        (through(EventValue::Known(Value::Uint32(131))), (Action::Permit, "through a tunnel")),
        (through(EventValue::Known(Value::Uint32(6))), (Action::Block, "nothing past the VPN")),
        (through(EventValue::Unknown), (Action::Late, "through a tunnel")),
    ] {
        assert_eq!(asked(&policy, &image, &event), expected, "{event:?}");
    }
}

/// One bit of an image is changed, or its end is missing.
fn damaged(random: &mut random::Random, mut bytes: Vec<u8>) {
    for _ in 0..5 {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        body::check(&bytes);
    }
    bytes.truncate(random.below(bytes.len()));
    body::check(&bytes);
}

#[test]
fn seeds_and_damaged_images_are_read_or_refused() {
    let mut random = random::Random::new(11);
    let mut readable = vec![];
    for entry in fs::read_dir(tree("fuzz/seeds/image")).expect("the seeds are in the tree") {
        let path = entry.expect("readable").path();
        let bytes = fs::read(&path).expect("readable");
        body::check(&bytes);
        if PolicyImage::from_bytes(&bytes).is_ok() {
            readable.push(path.file_name().expect("a file").to_string_lossy().into_owned());
        }
        for _ in 0..20 {
            damaged(&mut random, bytes.clone());
        }
    }
    readable.sort();
    assert_eq!(readable, ["allow-list-by-address", "empty", "kill-switch-vpn", "loop", "one_block"]);
    for _ in 0..200 {
        let policy = random::policy(&mut random, 30);
        let compiled = compile_objects(1, &policy.sublayers, policy.filters, &[]).expect("a small policy");
        let bytes = compiled.image().to_bytes();
        body::check(&bytes);
        damaged(&mut random, bytes);
    }
}
