//! Dumps of real machines, as `netsh wfp show filters` writes them.
//!
//! They come from elsewhere, under terms that keep them and what is taken from them out of this tree. `OPENWFP_DATA` names
//! the folder that has `netsh/machine-a.filters.xml` and `netsh/machine-b.filters.xml`; `none` says that there is none. Tests that need
//! it are skipped then, and say so. With WFP_TEST_EVERYTHING set they fail, unless `none` was said.

use std::{env, fs, io, io::Write, path::PathBuf};

/// Writes a line past the test runner, which keeps what passing tests print.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The dumps, each with the name of its machine.
pub fn filters() -> Option<[(&'static str, String); 2]> {
    let Some(folder) = env::var_os("OPENWFP_DATA") else {
        let reason = "OPENWFP_DATA names no folder with the filters of real machines";
        assert!(env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {reason} (none: there is none)");
        say(format_args!("skipped: {reason}"));
        return None;
    };
    if folder == "none" {
        say("skipped: the filters of real machines are not here (OPENWFP_DATA=none)");
        return None;
    }
    // where a folder is named, they have to be there
    Some(["a", "b"].map(|machine| {
        let path = PathBuf::from(&folder).join(format!("netsh/machine-{machine}.filters.xml"));
        (machine, fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }))
}
