//! Policies that are taken anew while the command runs: on SIGHUP, or when a file changes.

use super::{
    files::{self, Files},
    hosts, recorded,
    session::{Next, Source},
    warn_of_layers,
};
use crate::{
    args::RunArgs,
    output::{Globals, complain},
    policies::{self, Reported},
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_engine::CompiledPolicy;
use openwfp_kernel::{enforcement::EnforceError, replace::Replaced};
use openwfp_model::Guid;
use openwfp_sandbox::RunUser;
use std::{
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// The policy files of a run.
pub(super) struct Reload<'a> {
    args: &'a RunArgs,
    globals: Globals,
    /// What holds.
    policy: Arc<CompiledPolicy>,
    /// What was read last, whatever came of it.
    sources: Vec<policies::Source>,
    files: Option<Files>,
    /// The keys of the callouts that hosts answer for.
    served: Vec<Guid>,
    /// Why the files could not be read the last time, which is said once.
    unreadable: Option<String>,
    /// Who can change the files although he is subject to them.
    hole: Option<String>,
}

/// Files that cannot be read or watched are looked for again so often.
const AGAIN: Duration = Duration::from_secs(1);

impl<'a> Reload<'a> {
    /// For files from which this policy was made.
    pub fn new(
        args: &'a RunArgs,
        globals: Globals,
        policy: Arc<CompiledPolicy>,
        sources: Vec<policies::Source>,
        served: Vec<Guid>,
    ) -> Result<Self> {
        let mut files = args.watch.then(|| Files::watch(&args.policy)).transpose().context("--watch")?;
        // what has changed since they were read
        if let Some(files) = &mut files {
            files.look_again(Instant::now());
        }
        Ok(Self { args, globals, policy, sources, files, served, unreadable: None, hole: None })
    }

    /// Reads the files. `None`: one of them is being written, and will be looked at again.
    fn read(&mut self, asked: bool) -> Result<Option<Vec<policies::Source>>> {
        // watched anew before they are read: links may lead elsewhere, and what changes from here on is seen
        if self.args.watch {
            self.files = Some(Files::watch(&self.args.policy).context("the policy files are not watched any more")?);
        }
        let mut sources = vec![];
        for path in &self.args.policy {
            // a pipe, as from <(…), was read to its end at the start: it is empty now, and nothing would be filtered
            if policies::is_standard_input(path) || path.metadata().is_ok_and(|found| !found.is_file()) {
                bail!("{} is not a file that can be read again", policies::shown(path).display());
            }
            sources.push(policies::Source::read(path)?);
        }
        if let Some(files) = &mut self.files
            && !asked
        {
            files.look(Instant::now());
            if files.has_changed() {
                return Ok(None);
            }
            if let Some(empty) = sources.iter().find(|source| source.bytes.trim_ascii().is_empty()) {
                bail!(
                    "{} is empty: a comment in it says that no filters are meant, and SIGHUP takes it as it is",
                    empty.path.display()
                );
            }
        }
        Ok(Some(sources))
    }

    fn next(&mut self, asked: bool) -> Option<Result<Next>> {
        let sources = match self.read(asked) {
            Ok(sources) => sources?,
            Err(error) => {
                if let Some(files) = &mut self.files {
                    files.look_again(Instant::now() + AGAIN);
                }
                let text = Some(format!("{error:#}"));
                let new = asked || text != self.unreadable;
                self.unreadable = text;
                return new.then_some(Err(error));
            }
        };
        self.unreadable = None;
        if sources == self.sources && !asked {
            return None;
        }
        self.sources = sources;
        let compiled = policies::compiled_from(&self.sources, Some(&self.policy), &self.served, self.globals);
        Some(compiled.and_then(|(policy, parsed)| {
            warn_of_layers(&policy, self.globals);
            let recorded = recorded(self.args, &policy)?;
            let named = hosts::filters(&self.served, &policy, &parsed);
            Ok(Next { policy: Arc::new(policy), recorded, named })
        }))
    }

    fn refused(&self, error: &anyhow::Error) {
        let paint = self.globals.paint_error();
        if !error.is::<Reported>() {
            complain(format_args!("{} {error:#}", paint.red("error:")));
        }
        let generation = self.policy.generation();
        complain(format_args!("{}: the policy was not reloaded; generation {generation} holds", paint.yellow("wfp")));
    }
}

impl Source for Reload<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.files.as_ref().map(Files::descriptor)
    }

    fn runs_as(&mut self, user: Option<&RunUser>) {
        self.hole = user.and_then(|user| files::writable(&self.args.policy, user)).map(|path| {
            format!("the command can change its own policy: the user it runs as may write {}", path.display())
        });
        if self.args.watch
            && let Some(hole) = self.hole.take()
        {
            self.globals.notice(&hole);
        }
    }

    fn look(&mut self, asked: bool) -> Option<Result<Next>> {
        let due = self.files.as_mut().is_some_and(|files| {
            let now = Instant::now();
            files.look(now);
            files.is_due(now)
        });
        if !asked && !due {
            return None;
        }
        if let Some(hole) = self.hole.take() {
            self.globals.notice(&hole);
        }
        let next = self.next(asked)?;
        if let Err(error) = &next {
            self.refused(error);
        }
        Some(next)
    }

    fn answer(&mut self, next: &Next, result: Result<&Replaced, &EnforceError>) {
        match result {
            Ok(replaced) => {
                self.policy = next.policy.clone();
                replaced.warnings.iter().for_each(|warning| self.globals.notice(&warning.to_string()));
                let filters = match self.policy.filters().len() {
                    1 => "1 filter".to_owned(),
                    count => format!("{count} filters"),
                };
                self.globals.notice(&format!("policy reloaded: generation {}, {filters}", replaced.generation));
            }
            Err(error @ EnforceError::UnknownGroup { .. }) if !self.args.watch => {
                self.refused(&anyhow!("{error} (under --watch, later policies may name all groups of this machine)"));
            }
            Err(error) => self.refused(&anyhow!("{error}")),
        }
    }
}
