//! What people see when a policy file is wrong: each file of `tests/policy` with the exact text beside it (`.stderr`).
//!
//! `BLESS=1 cargo test -p openwfp-model --test policy_file_messages` writes the texts anew; then read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use openwfp_model::policy_file::{self, Resolver};

/// A machine with two users, one group, one symbolic link and nothing under `/nowhere`.
struct Machine;

impl Resolver for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        match name {
            "root" => Some(0),
            "alice" => Some(1000),
            _ => None,
        }
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "adm").then_some(4)
    }

    fn canonicalize(&self, path: &str) -> Result<String, String> {
        match path {
            "/usr/bin/python3" => Ok("/usr/bin/python3.13".to_owned()),
            _ if path.starts_with("/nowhere/") => Err("No such file or directory".to_owned()),
            _ => Ok(path.to_owned()),
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "stderr"))
        .collect();
    files.sort();
    files
}

#[test]
fn messages() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let bytes = fs::read(&path).expect("a case");
        let shown = match policy_file::read_bytes(name, &bytes, &Machine) {
            Ok(read) => read.warnings,
            Err(diagnostics) => diagnostics,
        };
        assert!(!shown.is_empty(), "{name} is right: it belongs into another test");
        let shown = shown.render(false) + "\n";
        let expected_path = path.with_extension(format!("{}.stderr", path.extension().unwrap_or_default().display()));
        if bless {
            fs::write(&expected_path, &shown).expect("writing the text");
        } else if fs::read_to_string(&expected_path).ok().as_deref() != Some(&shown) {
            wrong.push(format!("{name} now says:\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_message_names_a_place_and_what_to_expect() {
    for path in cases() {
        let name = path.display().to_string();
        let bytes = fs::read(&path).expect("a case");
        let shown = match policy_file::read_bytes(&name, &bytes, &Machine) {
            Ok(read) => read.warnings,
            Err(diagnostics) => diagnostics,
        };
        for diagnostic in &shown {
            assert!(diagnostic.labels.iter().all(|label| !label.text.is_empty()), "{name}: {diagnostic:?}");
            assert!(diagnostic.span().end <= shown.text().len(), "{name}: {diagnostic:?}");
        }
        assert_eq!(shown.to_json().lines().count(), shown.len());
    }
}
