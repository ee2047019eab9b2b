//! A window over a reader: what is looked at, and where in the file it stands.

use std::io::{self, Read};

use super::error::{CaptureError, CaptureProblem, Part};

const FIRST_SIZE: usize = 256 * 1024;

pub(super) struct Input<R> {
    reader: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    frames: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, bytes: vec![0; FIRST_SIZE], start: 0, end: 0, offset: 0, frames: 0 }
    }

    /// What has been read and not been consumed.
    #[inline]
    pub(super) fn window(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads until the window has `needed` bytes, or as many as there are; returns how many of them it has.
    #[inline]
    pub(super) fn fill(&mut self, needed: usize) -> Result<usize, CaptureError> {
        if self.end - self.start < needed {
            self.read(needed)?;
        }
        Ok(needed.min(self.end - self.start))
    }

    #[cold]
    fn read(&mut self, needed: usize) -> Result<(), CaptureError> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        while self.end < needed {
            match self.reader.read(&mut self.bytes[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(CaptureProblem::Read(error))),
            }
        }
        Ok(())
    }

    /// Reads until the window has all `needed` bytes of a part of the file.
    #[inline]
    pub(super) fn require(&mut self, part: Part, needed: usize) -> Result<(), CaptureError> {
        let available = self.fill(needed)?;
        if available < needed {
            return Err(self.truncated(part, needed as u64, available as u64));
        }
        Ok(())
    }

    /// Passes over bytes of the window.
    #[inline]
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.end - self.start);
        self.start += length;
        self.offset += length as u64;
    }

    /// Passes over a part of the file that need not fit into the window.
    pub(super) fn skip(&mut self, part: Part, length: u64) -> Result<(), CaptureError> {
        let mut rest = length;
        while rest > 0 {
            let step = usize::try_from(rest).unwrap_or(usize::MAX).min(FIRST_SIZE);
            let available = self.fill(step)?;
            if available == 0 {
                let consumed = length - rest;
                let mut error = self.truncated(part, length, consumed);
                error.offset = self.offset - consumed;
                return Err(error);
            }
            self.consume(available);
            rest -= available as u64;
        }
        Ok(())
    }

    pub(super) const fn frames(&self) -> u64 {
        self.frames
    }

    /// Counts a frame and returns its number, from 1.
    #[inline]
    pub(super) fn count_frame(&mut self) -> u64 {
        self.frames += 1;
        self.frames
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// An error about what begins where the window begins.
    #[cold]
    pub(super) fn error(&self, problem: CaptureProblem) -> CaptureError {
        CaptureError { frame: self.frames + 1, offset: self.offset, problem }
    }

    fn truncated(&self, part: Part, needed: u64, available: u64) -> CaptureError {
        self.error(CaptureProblem::Truncated { part, needed, available })
    }
}
