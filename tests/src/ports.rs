//! Ports of brokers that are killed and started again.
//!
//! A port that the system chooses is one of those that it also gives to connections which go out: while its broker is dead, any process of the
//! machine may be given it. The ports here are below those, and two brokers of one process never share one.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// First port that is given.
const FIRST: u16 = 20_000;
/// How many there are; Linux gives ports from 32,768 on to connections.
const COUNT: u16 = 12_000;
/// How far apart two processes begin whose numbers follow one another.
const APART: u32 = 97;

static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A loopback address where nothing listens, and which the system gives to nobody else. Port 0 when all are taken.
pub fn lasting_address() -> SocketAddr {
    let begin = (std::process::id() % u32::from(COUNT)) * APART % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u32::from(FIRST) + (begin + step) % u32::from(COUNT);
        let Ok(port) = u16::try_from(port) else { continue };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::lasting_address;

    #[test]
    fn an_address_is_given_once_and_can_be_taken_again_after_a_connection() {
        let (first, second) = (lasting_address(), lasting_address());
        assert_ne!(first, second);
        assert!(first.port() < 32_000, "{first}");
        for _ in 0..2 {
            let listener = TcpListener::bind(first).unwrap();
            let _client = std::net::TcpStream::connect(first).unwrap();
            let _served = listener.accept().unwrap();
        }
    }
}
