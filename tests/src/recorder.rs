//! Writes a history down: one list for all threads of a harness, one monotonic clock.
//!
//! Index and time are given under one lock, so both rise together and an event that was recorded before another one stands before
//! it. Events are kept in memory, and appended to a file of JSON lines when one is given: what a killed harness saw is there up to
//! the last few events.

#![expect(
    clippy::disallowed_methods,
    reason = "it writes a file of the harness's own and reads the clock that all events share"
)]

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    mem,
    path::Path,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use crate::history::{Event, Operation, Phase};

/// Takes events from any thread.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    /// The next number of a process; 0 is the harness itself.
    next_proc: AtomicU32,
    pages: Mutex<Pages>,
}

/// Guarded by `pages`.
#[derive(Debug, Default)]
struct Pages {
    next_index: u64,
    events: Vec<Event>,
    lines: Option<BufWriter<File>>,
    /// The first failure of the file; recording goes on in memory.
    failure: Option<io::Error>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// One that keeps events in memory.
    pub fn new() -> Recorder {
        let pages = Mutex::new(Pages::default());
        Recorder { began: Instant::now(), next_proc: AtomicU32::new(1), pages }
    }

    /// One that writes them to a new file as well.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn with_file(path: &Path) -> io::Result<Recorder> {
        let recorder = Recorder::new();
        recorder.pages.lock().lines = Some(BufWriter::new(File::create(path)?));
        Ok(recorder)
    }

    /// A number for a sender, reader or session that no other one has.
    pub fn proc(&self) -> u32 {
        self.next_proc.fetch_add(1, Relaxed)
    }

    /// Nanoseconds since the recorder was made.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// `operation` begins.
    pub fn invoke(&self, proc: u32, operation: Operation) {
        self.record(proc, Phase::Invoke, operation, None);
    }

    /// `operation` is done, with what was answered in it; also what comes without being asked for.
    pub fn ok(&self, proc: u32, operation: Operation) {
        self.record(proc, Phase::Ok, operation, None);
    }

    /// `operation` was surely not done.
    pub fn fail(&self, proc: u32, operation: Operation, err: impl Into<String>) {
        self.record(proc, Phase::Fail, operation, Some(err.into()));
    }

    /// Nobody knows whether `operation` was done.
    pub fn info(&self, proc: u32, operation: Operation, err: impl Into<String>) {
        self.record(proc, Phase::Info, operation, Some(err.into()));
    }

    /// The harness does something to the broker; called before it is done.
    pub fn fault(&self, name: &str) {
        self.ok(0, Operation::Fault { name: name.into() });
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        self.pages.lock().events.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the events so far.
    pub fn events(&self) -> Vec<Event> {
        self.pages.lock().events.clone()
    }

    /// Takes the events out, and writes the rest of the file.
    ///
    /// # Errors
    /// When the file could not be written at some time; the events are gone then.
    pub fn finish(&self) -> io::Result<Vec<Event>> {
        let mut pages = self.pages.lock();
        if let Some(lines) = &mut pages.lines {
            lines.flush()?;
        }
        match pages.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(mem::take(&mut pages.events)),
        }
    }

    fn record(&self, proc: u32, phase: Phase, operation: Operation, err: Option<String>) {
        let mut pages = self.pages.lock();
        let index = pages.next_index;
        pages.next_index += 1;
        let event = Event { index, t_ns: self.now_ns(), proc, phase, operation, err };
        pages.write_line(&event);
        pages.events.push(event);
    }
}

impl Pages {
    fn write_line(&mut self, event: &Event) {
        let Some(lines) = &mut self.lines else { return };
        let written = serde_json::to_writer(&mut *lines, event)
            .map_err(io::Error::from)
            .and_then(|()| lines.write_all(b"\n"));
        if let Err(failure) = written {
            self.failure = Some(failure);
            self.lines = None;
        }
    }
}

#[cfg(test)]
mod tests;
