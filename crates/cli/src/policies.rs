//! Policies from files, compiled together.

use crate::{
    machine::Machine,
    output::{self, Globals},
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_engine::{CompiledPolicy, compile_after_with, compile_with};
use openwfp_model::{Guid, Policy, policy_file};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Stands for standard input where a policy is named.
const STANDARD_INPUT: &str = "-";

/// Whether a policy is to be read from standard input.
pub(crate) fn is_standard_input(path: &Path) -> bool {
    path == Path::new(STANDARD_INPUT)
}

/// The name of a policy file in what is said of it.
pub(crate) fn shown(path: &Path) -> &Path {
    if is_standard_input(path) { Path::new("<stdin>") } else { path }
}

/// A file's mistakes were printed already.
#[derive(Debug)]
pub(crate) struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the policy is invalid")
    }
}

impl std::error::Error for Reported {}

/// A policy file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file, as it is told.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Source {
    pub fn read(path: &Path) -> Result<Self> {
        let from_input = is_standard_input(path);
        let bytes = match from_input {
            true => {
                let mut bytes = vec![];
                io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
            }
            false => fs::read(path),
        };
        let path = shown(path).to_path_buf();
        let bytes = bytes.with_context(|| format!("cannot read the policy {}", path.display()))?;
        // whoever should have written it may have failed, and no policy permits everything
        if from_input && bytes.trim_ascii().is_empty() {
            bail!("{} is empty: a comment in it says that no filters are meant", path.display());
        }
        Ok(Self { path, bytes })
    }

    fn parse(&self) -> Result<policy_file::Read, policy_file::Diagnostics> {
        policy_file::read_bytes(&self.path.display().to_string(), &self.bytes, &Machine)
    }
}

/// Reads one file; its warnings are handed over as they are.
pub(crate) fn read(path: &Path) -> Result<Result<policy_file::Read, policy_file::Diagnostics>> {
    Ok(Source::read(path)?.parse())
}

/// Reads all files. Mistakes and warnings go to standard error, all of them.
pub(crate) fn load(paths: &[PathBuf], globals: Globals) -> Result<Vec<Policy>> {
    let sources: Vec<Source> = paths.iter().map(|path| Source::read(path)).collect::<Result<_>>()?;
    parse(&sources, globals)
}

/// Parses files that were read. Mistakes and warnings go to standard error.
pub(crate) fn parse(sources: &[Source], globals: Globals) -> Result<Vec<Policy>> {
    let mut policies = vec![];
    let mut failed = false;
    for source in sources {
        let report = match source.parse() {
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
    let sources: Vec<Source> = paths.iter().map(|path| Source::read(path)).collect::<Result<_>>()?;
    Ok(compiled_from(&sources, None, &[], globals)?.0)
}

/// Compiles files that were read; with a policy whose place they are to take, as the generation after it. The callouts with these
/// keys are registered.
pub(crate) fn compiled_from(
    sources: &[Source],
    previous: Option<&CompiledPolicy>,
    registered: &[Guid],
    globals: Globals,
) -> Result<(CompiledPolicy, Vec<Policy>)> {
    let policies = parse(sources, globals)?;
    let all: Vec<&Policy> = policies.iter().collect();
    let compiled = match previous {
        Some(previous) => compile_after_with(previous, &all, registered)?,
        None => compile_with(&all, registered)?,
    };
    Ok((compiled, policies))
}
