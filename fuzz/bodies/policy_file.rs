//! What must hold for any bytes that are given to the reader of policy files. Run by the fuzzer and, over the seeds, by a test.

use openwfp_model::policy_file::{self, NoMachine, Severity};

/// Panics where a promise of the reader or of the writers is broken.
pub fn check(bytes: &[u8]) {
    let shown = match policy_file::read_bytes("fuzz", bytes, &NoMachine) {
        Ok(read) => {
            assert!(read.warnings.iter().all(|diagnostic| diagnostic.severity == Severity::Warning));
            for text in [policy_file::write_toml(&read.policy), policy_file::write_json(&read.policy)] {
                match policy_file::read("written", &text, &NoMachine) {
                    Ok(again) => assert_eq!(again.policy, read.policy, "{text}"),
                    Err(wrong) => panic!("a policy that cannot be read again:\n{wrong}\n{text}"),
                }
            }
            read.warnings
        }
        Err(wrong) => {
            assert!(wrong.iter().any(|diagnostic| diagnostic.severity == Severity::Error));
            wrong
        }
    };
    for color in [false, true] {
        let drawn = shown.render(color);
        assert_eq!(drawn.is_empty(), shown.is_empty());
        let escapes = drawn.chars().any(|letter| letter.is_control() && letter != '\n');
        assert!(color || !escapes, "a control character gets through: {drawn:?}");
    }
    assert_eq!(shown.to_json().lines().count(), shown.len());
}
