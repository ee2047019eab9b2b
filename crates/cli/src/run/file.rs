//! The file of events. What stood in it before stands until the command runs, so that a run that does not come about
//! costs nobody the events of the last one.

use anyhow::{Context, Result};
use serde_json::Value as Json;
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Where lines of JSON go.
pub(super) struct EventFile {
    path: PathBuf,
    /// `None` before it is opened, or made.
    file: Option<BufWriter<File>>,
    failed: Option<io::Error>,
}

impl EventFile {
    /// Nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: None, failed: None }
    }

    /// Opens it, where it is there, and changes nothing in it. (It may take as long as a pipe has no reader.)
    pub fn open(&mut self) -> Result<()> {
        match OpenOptions::new().write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => self.opened(opened),
        }
    }

    /// Makes it, where it was not there.
    pub fn make(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        // somebody else may have made it meanwhile
        self.opened(OpenOptions::new().write(true).create(true).truncate(false).open(&self.path))
    }

    fn opened(&mut self, file: io::Result<File>) -> Result<()> {
        let file = file.with_context(|| format!("cannot write events to {}", self.path.display()))?;
        self.file = Some(BufWriter::new(file));
        Ok(())
    }

    /// Takes away what stood in it. Devices and pipes have nothing of the kind.
    pub fn empty(&mut self) {
        let Some(file) = &self.file else { return };
        let file = file.get_ref();
        let emptied = file.metadata().and_then(|found| if found.is_file() { file.set_len(0) } else { Ok(()) });
        self.failed = emptied.err();
    }

    /// Writes a line. After one that could not be written there are no more.
    pub fn line(&mut self, line: &Json) {
        self.try_to(|file| writeln!(file, "{line}"));
    }

    /// What was written can be read by others now.
    pub fn flush(&mut self) {
        self.try_to(Write::flush);
    }

    fn try_to(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        if let (Some(file), None) = (&mut self.file, &self.failed) {
            self.failed = write(file).err();
        }
    }

    /// Whether all could be written.
    pub fn end(mut self) -> Result<()> {
        self.flush();
        let path = &self.path;
        self.failed
            .map_or(Ok(()), Err)
            .with_context(|| format!("not all events could be written to {}", path.display()))
    }
}
