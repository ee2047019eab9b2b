//! A command at a terminal: `script` plays the terminal, what is written to its standard input is typed.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Place, eventually, place};

struct Terminal {
    script: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<String>>,
    /// How much of the screen has been waited for already.
    seen: usize,
}

/// Runs a shell command line at a new terminal.
fn terminal(place: &Place, line: &str) -> Option<Terminal> {
    let mut script = place.command("script", ["-qefc", line, "/dev/null"]);
    script.env("PROBE", &place.probe).env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = match script.spawn() {
        Ok(script) => script,
        Err(error) => {
            common::skipped(format_args!("cannot play a terminal with script(1): {error}"));
            return None;
        }
    };
    let screen = Arc::new(Mutex::new(String::new()));
    let out: ChildStdout = script.stdout.take().unwrap();
    let keys = script.stdin.take();
    let lines = Arc::clone(&screen);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(out);
        let mut byte = [0];
        while reader.fill_buf().is_ok_and(|buffer| !buffer.is_empty()) && reader.read_exact(&mut byte).is_ok() {
            lines.lock().unwrap().push(char::from(byte[0]));
        }
    });
    Some(Terminal { script, keys, screen, seen: 0 })
}

impl Terminal {
    fn types(&mut self, keys: &str) {
        let out = self.keys.as_mut().unwrap();
        out.write_all(keys.as_bytes()).unwrap();
        out.flush().unwrap();
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until the text is on the screen, after what was waited for before.
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let screen = self.screen();
            if let Some(at) = screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(Instant::now() < end, "no `{text}` on the screen after {} bytes of:\n{screen}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn status(&mut self) -> i32 {
        let mut status = None;
        eventually("the command has ended", || {
            status = self.script.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Time for a shell to hand the terminal over, which nothing on the screen tells: keys that come before would be the shell's.
fn pause() {
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn the_command_reads_the_terminal() {
    let Some(place) = place() else { return };
    for options in ["", "--no-isolation"] {
        let Some(mut terminal) =
            terminal(&place, &format!("$PROBE run {options} -- sh -c 'echo name?; read n; echo hello $n'"))
        else {
            return;
        };
        terminal.shows("name?\r\n");
        terminal.types("alice\n");
        terminal.shows("hello alice");
        assert_eq!(terminal.status(), 0);
    }
}

#[test]
fn keys_reach_the_command_once() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "stty -echo; exec $PROBE run -- $PROBE signals") else { return };
    terminal.shows("ready\r\n");
    terminal.types("\x03");
    terminal.shows("2\r\n");
    terminal.types("\x1c");
    terminal.shows("3\r\n");
    terminal.types("\x03");
    terminal.shows("2\r\n");
    assert!(terminal.screen().ends_with("ready\r\n2\r\n3\r\n2\r\n"), "{}", terminal.screen());
}

#[test]
fn a_key_ends_a_command_that_does_not_care_and_the_runner_tells_it() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "$PROBE run -- sh -c 'echo up; exec sleep 60'; echo status $?") else {
        return;
    };
    terminal.shows("up\r\n");
    terminal.types("\x03");
    // The shell of `script -c` gets the key too; it does not wait for more than the runner.
    let status = terminal.status();
    assert!(status == 130 || terminal.screen().contains("status 130"), "{status}: {}", terminal.screen());
}

#[test]
fn pipelines_work_as_without_it() {
    let Some(place) = place() else { return };
    let line = "echo typed | $PROBE run -- cat | sh -c 'read a; echo name?; read b < /dev/tty; echo $a $b'";
    let Some(mut terminal) = terminal(&place, line) else { return };
    terminal.shows("name?\r\n");
    terminal.types("alice\n");
    terminal.shows("typed alice");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn the_shell_s_job_control_works() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "PS1='> ' bash --norc -i") else { return };
    terminal.shows("> ");
    terminal.types("$PROBE run --user nobody -- sh -c 'echo u''p; exec cat'\n");
    terminal.shows("up\r\n");
    terminal.types("one\n");
    terminal.shows("one\r\none\r\n");
    terminal.types("\x1a");
    terminal.shows("Stopped");
    terminal.types("echo in the sh''ell\n");
    terminal.shows("in the shell");
    terminal.types("fg\n");
    pause();
    terminal.types("two\n");
    terminal.shows("two\r\ntwo\r\n");
    terminal.types("\x04");
    terminal.types("echo sta''tus $?\n");
    terminal.shows("status 0");
    terminal.types("exit\n");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn a_command_in_the_background_that_wants_the_terminal_stops_with_the_runner() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "PS1='> ' bash --norc -i") else { return };
    terminal.shows("> ");
    terminal.types("$PROBE run --user nobody -- cat &\n");
    terminal.types("while [ -z \"$(jobs -s)\" ]; do sleep 0.02; done; echo sto''pped\n");
    terminal.shows("stopped\r\n");
    terminal.types("fg\n");
    pause();
    terminal.types("two\n");
    terminal.shows("two\r\ntwo\r\n");
    terminal.types("\x04");
    terminal.types("echo sta''tus $?\n");
    terminal.shows("status 0");
    terminal.types("exit\n");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn a_shell_inside_has_jobs_of_its_own() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "PS1='out> ' bash --norc -i") else { return };
    terminal.shows("out> ");
    terminal.types("PS1='in> ' $PROBE run -- bash --norc -i\n");
    terminal.shows("in> ");
    terminal.types("sh -c 'echo u''p; exec sleep 60'\n");
    terminal.shows("up\r\n");
    terminal.types("\x03");
    terminal.shows("in> ");
    terminal.types("echo sta''tus $?\n");
    terminal.shows("status 130");
    terminal.shows("in> ");
    terminal.types("sh -c 'echo u''p; exec sleep 60'\n");
    terminal.shows("up\r\n");
    terminal.types("\x1a");
    terminal.shows("Stopped");
    terminal.shows("in> ");
    terminal.types("fg\n");
    pause();
    terminal.types("\x03");
    terminal.shows("in> ");
    terminal.types("exit 3\n");
    terminal.shows("out> ");
    terminal.types("echo outer sta''tus $?\n");
    terminal.shows("outer status 3");
    terminal.types("exit\n");
    assert_eq!(terminal.status(), 0);
}

#[test]
fn a_new_size_of_the_terminal_reaches_the_command_once() {
    let Some(place) = place() else { return };
    let Some(mut terminal) = terminal(&place, "stty -echo; tty; $PROBE run -- $PROBE signals") else { return };
    terminal.shows("ready\r\n");
    let screen = terminal.screen();
    let tty = screen.lines().next().unwrap().trim().to_owned();
    let resized = place.command("stty", ["-F", &tty, "cols", "77"]).status().unwrap();
    assert!(resized.success());
    terminal.shows("28\r\n");
    terminal.types("\x03");
    terminal.shows("2\r\n");
    assert!(terminal.screen().ends_with("ready\r\n28\r\n2\r\n"), "{}", terminal.screen());
}

#[test]
fn the_command_cannot_type_into_the_terminal() {
    let Some(place) = place() else { return };
    let Some(mut outside) = terminal(&place, "$PROBE run --no-isolation -- $PROBE type x") else { return };
    outside.status();
    if !outside.screen().contains("0\r\n") {
        common::kernel_lacks(format_args!("this kernel lets nobody type into a terminal: {}", outside.screen()));
        return;
    }
    let Some(mut inside) = terminal(&place, "$PROBE run -- $PROBE type x") else { return };
    inside.shows("EPERM");
    inside.status();
}
