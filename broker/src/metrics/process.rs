//! What the operating system says of this process. Numbers it does not tell are left out.

use std::{io, time::Duration};

use rustix::{
    fs::{CWD, Mode, OFlags},
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Longest file of `/proc` that is read here.
const FILE_BYTES_MAX: usize = 256;

/// This process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// Time it ran on any core.
    pub cpu: Option<Duration>,
    /// Bytes of memory it holds.
    pub resident_bytes: Option<u64>,
    /// Files and sockets it has open.
    pub open_files: Option<u64>,
    /// Most it may have open; absent when there is no bound.
    pub open_files_max: Option<u64>,
}

impl ProcessFacts {
    /// Asks the operating system.
    pub fn read() -> ProcessFacts {
        ProcessFacts {
            cpu: cpu_time(),
            resident_bytes: resident_bytes(),
            open_files: open_files(),
            open_files_max: getrlimit(Resource::Nofile).current,
        }
    }
}

fn cpu_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

fn resident_bytes() -> Option<u64> {
    let text = read_small("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Linux tells their number as the size of the directory since 6.2; counting them would take a while with many.
fn open_files() -> Option<u64> {
    let size = rustix::fs::stat("/proc/self/fd").ok()?.st_size;
    u64::try_from(size).ok().filter(|count| *count > 0)
}

fn read_small(path: &str) -> io::Result<String> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let count = rustix::io::read(&file, &mut bytes)?;
    bytes.truncate(count);
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_memory_and_time() {
        let facts = ProcessFacts::read();
        assert!(facts.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{facts:?}");
        assert!(facts.cpu.is_some_and(|time| time > Duration::ZERO), "{facts:?}");
        assert!(facts.open_files_max.is_none_or(|max| max > 3), "{facts:?}");
    }
}
