//! Policies from files, compiled together.

use crate::{
    machine::Machine,
    output::{self, Globals},
};
use anyhow::{Context, Result, anyhow};
use openwfp_engine::{CompiledPolicy, compile};
use openwfp_model::{Policy, policy_file};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file's mistakes were printed already.
#[derive(Debug)]
pub(crate) struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the policy is invalid")
    }
}

impl std::error::Error for Reported {}

/// Reads one file; its warnings are handed over as they are.
pub(crate) fn read(path: &Path) -> Result<Result<policy_file::Read, policy_file::Diagnostics>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
    Ok(policy_file::read_bytes(&path.display().to_string(), &bytes, &Machine))
}

/// Reads all files. Mistakes and warnings go to standard error, all of them.
pub(crate) fn load(paths: &[PathBuf], globals: Globals) -> Result<Vec<Policy>> {
    let mut policies = vec![];
    let mut failed = false;
    for path in paths {
        let report = match read(path)? {
            Ok(read) => {
                policies.push(read.policy);
                read.warnings
            }
            Err(report) => {
                failed = true;
                report
            }
        };
        if report.is_empty() || globals.quiet && !failed {
            continue;
        }
        output::complain(format_args!("{}\n", report.render(globals.paint_error().0)));
    }
    if failed { Err(anyhow!(Reported)) } else { Ok(policies) }
}

/// Reads and compiles all files, which live side by side as independent providers do.
pub(crate) fn compiled(paths: &[PathBuf], globals: Globals) -> Result<CompiledPolicy> {
    let policies = load(paths, globals)?;
    let policies: Vec<&Policy> = policies.iter().collect();
    Ok(compile(&policies)?)
}
