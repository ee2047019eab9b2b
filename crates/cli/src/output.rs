//! How things are said: colour only on a terminal, JSON on request, and a reader that goes away is no error.

use anyhow::Result;
use clap::ValueEnum;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the user asked for, for all commands.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Globals {
    /// Print JSON Lines for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// Say less: no warnings, no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

impl Globals {
    fn colored(self, terminal: bool) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Colour for standard output.
    pub fn paint(self) -> Paint {
        Paint(self.colored(io::stdout().is_terminal()))
    }

    /// Colour for standard error.
    pub fn paint_error(self) -> Paint {
        Paint(self.colored(io::stderr().is_terminal()))
    }

    /// Says something on standard error that a person should know.
    pub fn notice(self, text: &str) {
        if !self.quiet {
            let paint = self.paint_error();
            complain(format_args!("{}: {text}", paint.yellow("wfp")));
        }
    }
}

/// Colours text, or does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub bool);

impl Paint {
    fn wrap(self, code: &str, text: impl std::fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub fn bold(self, text: impl std::fmt::Display) -> String {
        self.wrap("1", text)
    }

    pub fn dim(self, text: impl std::fmt::Display) -> String {
        self.wrap("2", text)
    }

    pub fn red(self, text: impl std::fmt::Display) -> String {
        self.wrap("1;31", text)
    }

    pub fn green(self, text: impl std::fmt::Display) -> String {
        self.wrap("1;32", text)
    }

    pub fn yellow(self, text: impl std::fmt::Display) -> String {
        self.wrap("33", text)
    }

    /// `permit` in green, anything else in red.
    pub fn action(self, action: &str) -> String {
        if action == "permit" { self.green(action) } else { self.red(action) }
    }
}

/// An error with its causes, in one line. Errors of libraries name their cause themselves: it is not said twice.
pub(crate) fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.contains(&cause) {
        true => told,
        false if told.is_empty() => cause,
        false => format!("{told}: {cause}"),
    })
}

/// Words of the command line that are wrong, whatever the files and the machine are like.
#[derive(Debug)]
pub(crate) struct WrongUsage(String);

impl WrongUsage {
    /// The exit status, of `wfp run` too.
    pub const STATUS: u8 = 2;
}

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// What is wrong here is wrong with the words of the command line.
pub(crate) fn words<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| WrongUsage(told(&error)).into())
}

/// Says something on standard error. That nobody reads it is no error.
pub(crate) fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Standard output, buffered.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// Writes with a function; that nobody reads any more (`| head`) is no error.
pub(crate) fn write_out(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = stdout();
    match write(&mut out).and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

/// Whether an error is that nobody reads any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use openwfp_kernel::group::GroupError;

    #[test]
    fn a_cause_is_said_once() {
        let system = GroupError::System { path: "/x".into(), source: io::Error::from_raw_os_error(2) };
        let error = Err::<(), _>(system).context("no group").unwrap_err();
        assert_eq!(told(&error), "no group: cannot use /x: No such file or directory (os error 2)");
        assert_eq!(told(&anyhow::anyhow!("alone")), "alone");
    }
}
