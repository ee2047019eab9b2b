//! What the tests of this crate start: the smallest program that runs a command as `wfp run` does, and single system calls to
//! try inside and outside.
//!
//! ```text
//! openwfp-sandbox-probe run [OPTION…] -- COMMAND…
//! openwfp-sandbox-probe syscall NUMBER ARGUMENT…      prints 0 or more, or the name of the error
//! openwfp-sandbox-probe int80 NUMBER ARGUMENT…        the same, as a 32-bit program calls the kernel
//! openwfp-sandbox-probe signals                       prints each signal that comes and its value, until SIGTERM
//! openwfp-sandbox-probe threads                       prints what a thread and a process of its own say
//! openwfp-sandbox-probe type TEXT                     types into the terminal (TIOCSTI)
//! openwfp-sandbox-probe steal PID DESCRIPTOR          takes a descriptor of another process
//! ```

mod call;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use openwfp_sandbox::{Groups, Isolation, RunGroup, Sandbox};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["run", rest @ ..] => return run(rest),
        ["syscall", rest @ ..] => numbers(rest).map(|numbers| println!("{}", call::syscall(&numbers))),
        ["int80", rest @ ..] => numbers(rest).map(|numbers| println!("{}", call::int80(&numbers))),
        ["signals"] => call::signals(),
        ["threads"] => threads(),
        ["type", text] => {
            println!("{}", call::type_into_terminal(text));
            Ok(())
        }
        ["steal", pid, descriptor] => {
            numbers(&[pid, descriptor]).map(|numbers| println!("{}", call::steal(numbers[0], numbers[1])))
        }
        _ => Err("usage: openwfp-sandbox-probe run|syscall|int80|signals|type|steal …".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 2),
    }
}

/// Both are made with calls that the filter looks at.
fn threads() -> Result<(), Box<dyn Error>> {
    let thread = std::thread::spawn(|| "thread").join().map_err(|_| "the thread panicked")?;
    let output = std::process::Command::new("echo").arg("process").output()?;
    print!("{thread} {}", String::from_utf8(output.stdout)?);
    Ok(())
}

fn fail(error: &(impl std::fmt::Display + ?Sized), status: u8) -> ExitCode {
    eprintln!("probe: {error}");
    ExitCode::from(status)
}

fn numbers(words: &[&str]) -> Result<Vec<i64>, Box<dyn Error>> {
    let number = |word: &&str| match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    Ok(words.iter().map(number).collect::<Result<_, _>>()?)
}

/// What the tests ask of `run` besides isolation.
#[derive(Default)]
struct Options<'a> {
    isolation: Isolation,
    /// Executes the command only once this file exists.
    wait_for: Option<&'a str>,
    /// Writes the group's folder and the process id here once the process stands ready.
    report: Option<&'a str>,
    command: &'a [&'a str],
}

fn options<'a>(words: &'a [&'a str]) -> Result<Options<'a>, Box<dyn Error>> {
    let mut options = Options::default();
    let isolation = &mut options.isolation;
    let mut rest = words.iter();
    while let Some(&word) = rest.next() {
        let mut value = || rest.next().copied().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--no-isolation" => isolation.enabled = false,
            "--user" => isolation.user = Some(value()?.to_owned()),
            "--keep-cap" => isolation.keep_capabilities.push(value()?.parse()?),
            "--family" => isolation.families.push(value()?.parse()?),
            "--io-uring" => isolation.io_uring = true,
            "--user-namespaces" => isolation.user_namespaces = true,
            "--keep-fd" => isolation.keep_descriptors.push(value()?.parse()?),
            "--network-devices" => isolation.network_devices = true,
            "--wait-for" => options.wait_for = Some(value()?),
            "--report" => options.report = Some(value()?),
            "--" => {
                options.command = rest.as_slice();
                return Ok(options);
            }
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    Err("-- and a command are missing".into())
}

fn run(words: &[&str]) -> ExitCode {
    let options = match options(words) {
        Ok(options) => options,
        Err(error) => return fail(&*error, 2),
    };
    match run_in_group(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&error, error.exit_status()),
    }
}

fn run_in_group(options: &Options<'_>) -> Result<u8, openwfp_sandbox::Error> {
    let sandbox = Sandbox::new(&options.isolation)?;
    for descriptor in sandbox.descriptors() {
        eprintln!("probe: {descriptor}");
    }
    for shortfall in sandbox.shortfalls() {
        eprintln!("probe: {shortfall}");
    }
    let groups = Groups::find()?;
    for ended in groups.ended()? {
        ended.remove()?;
    }
    let group = groups.create()?;
    let result = run_command(options, &sandbox, &group);
    group.remove()?;
    result
}

fn run_command(options: &Options<'_>, sandbox: &Sandbox, group: &RunGroup) -> Result<u8, openwfp_sandbox::Error> {
    let Some((program, arguments)) = options.command.split_first() else { return Ok(0) };
    let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
    let held = sandbox.spawn(group, program.as_ref(), &arguments, std::env::vars_os())?;
    if let Some(report) = options.report {
        let text = format!("{}\n{}\n", group.path().display(), held.id());
        if let Err(error) = std::fs::write(report, text) {
            eprintln!("probe: {report}: {error}");
        }
    }
    while options.wait_for.is_some_and(|file| !Path::new(file).exists()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = held.release()?.wait()?;
    // The tests read standard output to its end.
    let _ = std::io::stdout().flush();
    Ok(outcome.exit_status())
}
