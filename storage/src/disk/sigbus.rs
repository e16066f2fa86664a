//! Survives a page of a mapped file that can no longer be reached.
//!
//! The kernel answers such an access with SIGBUS. The handler looks the address up in a table of
//! watched ranges. In one of them: the page is replaced by an anonymous one of zeros, the range's
//! poison flag is set, and the access goes on; whoever copied sees the flag afterwards and drops what
//! it read. In none of them it is a defect of the program: one line on stderr, and the process ends
//! with status 135, as the signal alone would.
//!
//! ```text
//! slot:  free (start 0) --watch--> claimed (start 1) --> watched (start, end) --drop--> free
//! ```
//!
//! Invariants:
//! - The table has a fixed size, is never locked, and the handler only loads and stores atomics and
//!   makes the calls `mmap`, `write` and `_exit`.
//! - A slot is freed only by its owner, who then no longer touches the range, so a fault in a range
//!   always finds its own slot, and never one that gets another range at that moment.

#![expect(unsafe_code, reason = "a signal handler that maps pages, and its installation")]

use std::{
    io, mem,
    ops::Range,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags},
};

/// Most ranges watched at a time.
const SLOT_COUNT: usize = 32_768;
/// `start` of a slot that is being filled in.
const CLAIMED: usize = 1;
/// What the process exits with after a fault outside every watched range: 128 + SIGBUS.
const EXIT_STATUS: i32 = 135;

static SLOTS: [Slot; SLOT_COUNT] = [const { Slot::free() }; SLOT_COUNT];
/// One past the highest slot ever used: bounds the handler's search.
static SLOTS_USED: AtomicUsize = AtomicUsize::new(0);
/// Bytes of a page; stored before the handler is installed.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

struct Slot {
    /// First address; 0 when free, [`CLAIMED`] while it is filled in.
    start: AtomicUsize,
    /// One past the last address.
    end: AtomicUsize,
    /// A page of the range was replaced.
    poisoned: AtomicBool,
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Whether `address` lies in the slot's range.
    fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        seen(start, end, self.start.load(Ordering::Relaxed)).contains(&address)
    }

    /// Makes a claimed slot watch a range.
    fn fill(&self, start: usize, end: usize) {
        self.poisoned.store(false, Ordering::Relaxed);
        self.end.store(end, Ordering::Release);
        self.start.store(start, Ordering::Release);
    }

    /// Claims a free slot.
    fn claim(&self) -> bool {
        self.start.load(Ordering::Relaxed) == 0
            && self.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn release(&self) {
        self.start.store(0, Ordering::Release);
    }
}

/// The range that a slot shows to who loads its start, its end, and its start again. None when the start
/// moved: start and end are then of two ranges, and what lies between these belongs to others.
fn seen(start: usize, end: usize, start_again: usize) -> Range<usize> {
    if start > CLAIMED && start == start_again { start..end } else { 0..0 }
}

/// A watched range; it is forgotten on drop, which must come before the range is unmapped.
pub(super) struct Registration {
    slot: &'static Slot,
}

impl Registration {
    /// Whether a page of the range was replaced since it is watched.
    pub(super) fn is_poisoned(&self) -> bool {
        self.slot.poisoned.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("poisoned", &self.is_poisoned()).finish()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.release();
    }
}

/// Watches `len` bytes from `start`, the first byte of a page. Installs the handler the first time.
///
/// # Errors
/// `ENOMEM` when the table is full; the system's error when the handler can not be installed.
pub(super) fn watch(start: usize, len: usize) -> io::Result<Registration> {
    install()?;
    let Some(index) = SLOTS.iter().position(Slot::claim) else {
        return Err(Errno::NOMEM.into());
    };
    SLOTS_USED.fetch_max(index + 1, Ordering::AcqRel);
    let slot = &SLOTS[index];
    slot.fill(start, start + len.next_multiple_of(page_bytes()));
    Ok(Registration { slot })
}

fn page_bytes() -> usize {
    PAGE_BYTES.load(Ordering::Relaxed)
}

fn install() -> io::Result<()> {
    if cfg!(miri) {
        // It knows no signals, and no page goes away there.
        return Ok(());
    }
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let result = INSTALLED.get_or_init(|| {
        PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
        // SAFETY: `sigaction` is a plain C struct for which zeros are a valid value.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        // The alternate stack of the thread, where there is one, is used; other signals stay blocked
        // no longer than the default.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is a valid sigaction whose handler has the three-argument form that
        // SA_SIGINFO asks for and only makes async-signal-safe calls; the old action is not asked for.
        let rc = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    });
    result.map_err(io::Error::from_raw_os_error)
}

/// Handles SIGBUS. Runs on the faulting thread, between any two of its instructions.
extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO, and for
    // SIGBUS its address field is filled in.
    let address = unsafe { (*info).si_addr() }.addr();
    let used = SLOTS_USED.load(Ordering::Acquire).min(SLOT_COUNT);
    match SLOTS[..used].iter().find(|slot| slot.holds(address)) {
        Some(slot) if replace_page(address) => slot.poisoned.store(true, Ordering::Release),
        Some(_) => end("riverrun: a page of a mapped segment is lost and could not be replaced\n"),
        None => end("riverrun: bus error outside every mapped segment\n"),
    }
}

/// Maps an anonymous page of zeros over the page that holds `address`.
fn replace_page(address: usize) -> bool {
    let page = address - address % page_bytes();
    let at = ptr::without_provenance_mut(page);
    // SAFETY: `page` lies in a watched range, which its owner keeps mapped while a thread touches it,
    // so exactly one page of that map is replaced and no other memory. No reference to the map's
    // bytes exists. The call is a bare system call.
    let mapped = unsafe {
        rustix::mm::mmap_anonymous(
            at,
            page_bytes(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED,
        )
    };
    mapped.is_ok()
}

/// Says `line` and ends the process without running anything else of it.
fn end(line: &'static str) -> ! {
    // SAFETY: `write` and `_exit` are async-signal-safe; `line` is a live slice of static memory.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        libc::_exit(EXIT_STATUS)
    }
}

#[cfg(test)]
mod tests;
