//! Bytes of any kind give a policy or an error, never a panic: the body of the fuzz target over its seeds, random bytes
//! and mutations.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use openwfp_model::policy_file::{self, NoMachine};
use proptest::prelude::*;
use proptest::sample::{Index, select};

#[path = "../../../fuzz/bodies/policy_file.rs"]
mod body;

fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry of the folder").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a file")))
        .collect();
    files.sort();
    files
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    files("../../fuzz/seeds/policy_file")
}

#[test]
fn the_seeds_of_the_fuzzer() {
    let seeds = seeds();
    assert!(seeds.len() >= 10);
    for (_, bytes) in &seeds {
        body::check(bytes);
    }
    let read = |bytes: &[u8]| policy_file::read_bytes("seed", bytes, &NoMachine);
    assert!(seeds.iter().filter(|(_, bytes)| read(bytes).is_ok()).count() >= 5, "seeds that hold a policy");
}

#[test]
fn the_files_of_the_messages() {
    for (_, bytes) in files("tests/policy") {
        body::check(&bytes);
    }
}

/// A seed with bytes changed, taken out, put in, and pieces of other seeds put in.
fn mutation() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<Vec<u8>> =
        ["[[filter]]\n", "\"", "{", "}", "[", "]", "=", ",", "\n", "\0", "é", "-", "0x", "\\u", "<", "'''", "#"]
            .iter()
            .map(|piece| piece.as_bytes().to_vec())
            .collect();
    let change = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        select(pieces),
        Just(Vec::new()),
        (select(seeds()), any::<Index>(), 0..64usize).prop_map(|((_, seed), at, len)| {
            let at = at.index(seed.len() + 1);
            seed[at..(at + len).min(seed.len())].to_vec()
        }),
    ];
    let changes = prop::collection::vec((any::<Index>(), 0..24usize, change), 1..6);
    (select(seeds()), changes).prop_map(|((_, mut bytes), changes)| {
        for (at, out, put) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + out).min(bytes.len());
            bytes.splice(at..end, put);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in any::<Vec<u8>>()) {
        body::check(&bytes);
    }

    #[test]
    fn any_text(text in any::<String>()) {
        body::check(text.as_bytes());
    }

    #[test]
    fn mutated_seeds(bytes in mutation()) {
        body::check(&bytes);
    }
}

#[test]
fn deep_nesting_is_an_error() {
    for (open, close) in [("[", "]"), ("{ not = ", "}")] {
        let text = format!("x = {}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(policy_file::read("deep", &text, &NoMachine).is_err());
    }
    let text = format!("{{\"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(policy_file::read("deep", &text, &NoMachine).is_err());
    // What one syntax holds has to fit into the other.
    for depth in 0..100 {
        let data = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        body::check(format!("{{\"provider_context\": [{{\"name\": \"x\", \"data\": {data}}}]}}").as_bytes());
    }
}

/// Many mistakes in one file, on many lines or all on one, take time in their number, not in its square.
#[test]
fn many_mistakes_are_shown_in_time() {
    let lines = "[[filter]]\nname = \"x\"\nlayer = \"STREEM\"\nactoin = \"block\"\n".repeat(5_000);
    let duplicates = "[[sublayer]]\nname = \"x\"\nweight = 1\n".repeat(5_000);
    let one_line = format!("{{\"filter\": [{}1]}}", "{\"name\": \"x\", \"layer\": 1}, ".repeat(5_000));
    let keys = format!("x = {{ {} }}", "a = 1, ".repeat(5_000));
    for text in [lines, duplicates, one_line, keys] {
        let start = Instant::now();
        let wrong = policy_file::read("many", &text, &NoMachine).expect_err("mistakes");
        assert!(wrong.len() >= 4_998, "{}", wrong.len());
        assert!(!wrong.render(false).is_empty());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} for {:.40}", start.elapsed(), text);
    }
}
