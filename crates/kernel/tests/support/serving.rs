//! Servers in the group, and whether they can be reached.

use super::{actor, live::Live};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::Duration,
};

/// A server in the group, until dropped.
pub struct Server(Child);

impl Server {
    /// One that does what the script says, and then waits.
    pub fn start(live: &Live, script: &str) -> Self {
        let mut command = actor::command(&format!("{script}\nwait"));
        live.group.enter(&mut command, "");
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a connection comes about; one that does not has to be left without an answer.
pub fn connects(to: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&to, Duration::from_millis(400)) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
            false
        }
    }
}
