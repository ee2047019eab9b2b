//! `wfp man` and `wfp completions`: what the definition of the command line says, in other forms.

use crate::{args::Cli, output};
use anyhow::{Context, Result};
use clap::CommandFactory;

/// Writes the manual page of `wfp`, or of one of its commands.
pub(crate) fn man(name: Option<&str>) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    if let Some(name) = name {
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let names = names.join(", ");
        let found = command.find_subcommand(name);
        let found = found.with_context(|| format!("there is no command {name}; there are {names}"));
        let found = output::words(found)?.clone();
        // the page says of which version it is
        command = found.version(env!("CARGO_PKG_VERSION")).disable_version_flag(true);
    }
    let mut page = vec![];
    clap_mangen::Man::new(command).render(&mut page)?;
    output::write_out(|out| Ok(out.write_all(&page)?))
}

/// Writes completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "wfp", &mut script);
    output::write_out(|out| Ok(out.write_all(&script)?))
}
