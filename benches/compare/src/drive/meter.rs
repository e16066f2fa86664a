//! Time and processor time of both sides over a span.

use super::Figures;
use crate::{clock, process};

/// A span that is measured.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    servers: &'a [u32],
    started: u64,
    client: f64,
    server: f64,
}

/// What a span took, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// On the wall.
    pub(crate) wall: f64,
    /// Of processors, by this process.
    pub(crate) client: f64,
    /// Of processors, by the server.
    pub(crate) server: f64,
}

impl<'a> Meter<'a> {
    /// Begins, with these processes as the server.
    pub(crate) fn start(servers: &'a [u32]) -> Meter<'a> {
        process::forget_peaks(servers);
        let (client, server) =
            (clock::own_processor_seconds(), process::processor_seconds(servers));
        Meter { servers, started: clock::nanos(), client, server }
    }

    /// Ends.
    pub(crate) fn stop(&self) -> Span {
        Span {
            wall: clock::seconds_since(self.started),
            client: clock::own_processor_seconds() - self.client,
            server: process::processor_seconds(self.servers) - self.server,
        }
    }

    /// Memory of the server since the start, as figures.
    pub(crate) fn memory(&self) -> Figures {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Figures::from([
            ("server_peak_mib".to_owned(), mib(process::peak_bytes(self.servers))),
            ("server_anonymous_mib".to_owned(), mib(process::anonymous_bytes(self.servers))),
        ])
    }

    /// Ends, with this many records of this many bytes moved: rates, cost and memory.
    pub(crate) fn moved(&self, records: u64, bytes: usize) -> Figures {
        let span = self.stop();
        let gigabytes = records as f64 * bytes as f64 / 1e9;
        let mut figures = self.memory();
        figures.extend([
            ("records".to_owned(), records as f64),
            ("seconds".to_owned(), span.wall),
            ("records_per_second".to_owned(), records as f64 / span.wall),
            ("megabytes_per_second".to_owned(), gigabytes * 1e3 / span.wall),
            ("client_cpu_seconds_per_gb".to_owned(), span.client / gigabytes),
            ("server_cpu_seconds_per_gb".to_owned(), span.server / gigabytes),
            ("server_cpu_us_per_record".to_owned(), span.server * 1e6 / records as f64),
        ]);
        figures
    }
}
