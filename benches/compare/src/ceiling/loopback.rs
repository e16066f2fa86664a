//! One TCP connection over loopback between two processes: bytes pushed one way, and round trips of 100 bytes.
//!
//! The first byte of a connection says which: `p` pushes until it closes and is answered with one byte, `r` is echoed by 100 bytes.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

use super::percentiles;
use crate::{
    clock,
    drive::{Figures, Meter},
    error::Result,
};

/// Bytes of one write.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes of one round trip.
const ECHO_BYTES: usize = 100;

pub(super) fn measure(address: &str, far: &[u32], quick: bool) -> Result<Figures> {
    let (writes, trips) = if quick { (1_000, 500) } else { (64_000, 50_000) };
    let mut figures = Figures::new();
    let mut pushed = TcpStream::connect(address)?;
    pushed.set_nodelay(true)?;
    pushed.write_all(b"p")?;
    let meter = Meter::start(far);
    let block = vec![0x5a; WRITE_BYTES];
    for _ in 0..writes {
        pushed.write_all(&block)?;
    }
    pushed.shutdown(Shutdown::Write)?;
    pushed.read_exact(&mut [0])?;
    let span = meter.stop();
    let gigabytes = f64::from(writes) * WRITE_BYTES as f64 / 1e9;
    figures.insert("push_mb_per_second".into(), gigabytes * 1e3 / span.wall);
    figures.insert("push_cpu_seconds_per_gb".into(), (span.client + span.server) / gigabytes);

    let mut echoed = TcpStream::connect(address)?;
    echoed.set_nodelay(true)?;
    echoed.write_all(b"r")?;
    let mut block = [0x5a; ECHO_BYTES];
    let mut times = Vec::with_capacity(trips);
    for _ in 0..trips {
        let start = clock::nanos();
        echoed.write_all(&block)?;
        echoed.read_exact(&mut block)?;
        times.push(clock::nanos() - start);
    }
    figures.extend(percentiles("round_trip_100b", &times)?);
    Ok(figures)
}

/// The far end.
pub(super) fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let (mut near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        let mut kind = [0];
        // A connection that says nothing was only there to look.
        match near.read(&mut kind)? {
            0 => {}
            _ if kind == *b"p" => {
                while near.read(&mut buffer)? > 0 {}
                near.write_all(b"e")?;
            }
            _ => while echo(&mut near).is_ok() {},
        }
    }
}

fn echo(near: &mut TcpStream) -> std::io::Result<()> {
    let mut block = [0; ECHO_BYTES];
    near.read_exact(&mut block)?;
    near.write_all(&block)
}
