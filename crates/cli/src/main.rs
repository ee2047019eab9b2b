//! `wfp`: the Windows Filtering Platform for Linux, on the command line.

mod args;
mod bench;
mod callout_host;
mod callouts;
mod check;
mod demo;
mod event_line;
mod event_text;
mod explain;
mod export;
mod filled;
mod findings;
mod json;
mod live;
mod machine;
mod manual;
mod output;
mod policies;
mod progress;
mod readable;
mod replay;
mod replay_callouts;
mod replay_summary;
mod run;
mod show;
mod written;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use output::WrongUsage;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if usage { WrongUsage::STATUS } else { 0 });
        }
    };
    if let Some(conflict) = cli.command.conflict() {
        let _ = Cli::command().error(clap::error::ErrorKind::ArgumentConflict, conflict).print();
        return ExitCode::from(WrongUsage::STATUS);
    }
    let globals = cli.globals;
    let result = match cli.command {
        Command::Run(args) => return run::run(&args, globals),
        Command::Check(args) => check::check(&args, globals),
        Command::Explain(args) => explain::explain(&args, globals),
        Command::Replay(args) => replay::replay(&args, globals),
        Command::Bench(args) => bench::bench(&args, globals),
        Command::Show(args) => show::show(&args, globals),
        Command::CalloutHost(args) => return callout_host::host(&args),
        Command::Callouts => callouts::callouts(globals),
        Command::Export(args) => export::export(&args, globals),
        Command::Demo => demo::demo(globals),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { command } => manual::man(command.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error, globals);
            if error.is::<WrongUsage>() { ExitCode::from(WrongUsage::STATUS) } else { ExitCode::FAILURE }
        }
    }
}

/// Says an error and its causes on standard error, unless it was said already.
fn say(error: &anyhow::Error, globals: output::Globals) {
    if !error.is::<policies::Reported>() {
        output::complain(format_args!("{} {}", globals.paint_error().red("error:"), output::told(error)));
    }
}
