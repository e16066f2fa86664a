//! Who carries an attack out: a thread of the lowest priority, until it is told to end.
//!
//! A connection that the broker closes is opened anew at once.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::attacks::{Attack, Then};
use crate::error::{Error, Result};

/// Bytes of one write of a flood, at least.
const WRITE_BYTES: usize = 64 << 10;
/// Streams of one connection, at most; then it is opened anew.
const STREAMS_MAX: u32 = 1 << 20;
/// A read or write that takes longer ends the connection.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How soon an attack that waits sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Connections opened.
    pub(super) connections: u64,
    /// Bytes that the system took.
    pub(super) bytes: u64,
}

/// An attack under way.
pub(super) struct UnderWay {
    /// Dropped to end it.
    goes_on: Sender<()>,
    thread: JoinHandle<io::Result<Sent>>,
}

/// The thread.
struct Attacker {
    attack: Attack,
    address: SocketAddr,
    /// Cut off when the attack is to end.
    over: Receiver<()>,
    sent: Sent,
}

/// Begins an attack on the door at this address, and waits until its connections are open.
pub(super) fn begin(attack: Attack, address: &str) -> Result<UnderWay> {
    let address = address.parse().map_err(|_| Error::Wrong(format!("no address: {address}")))?;
    let (goes_on, over) = mpsc::channel();
    let mut attacker = Attacker { attack, address, over, sent: Sent::default() };
    let (begun, has_begun) = mpsc::channel();
    let thread = thread::Builder::new().name("attacker".into()).spawn(move || {
        // Of this thread only, as Linux has it.
        rustix::process::nice(19)?;
        attacker.run(&begun)?;
        Ok(attacker.sent)
    })?;
    // An attacker that ended without a word says why when it is waited for.
    let _ = has_begun.recv();
    Ok(UnderWay { goes_on, thread })
}

impl UnderWay {
    /// Ends it.
    pub(super) fn end(self) -> Result<Sent> {
        drop(self.goes_on);
        let sent = self.thread.join().map_err(|_| Error::Wrong("the attacker broke".into()))?;
        Ok(sent?)
    }
}

impl Attacker {
    fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn wait(&self, pause: Duration) {
        // Nothing is ever sent: it runs out, or the attack is over.
        let _ = self.over.recv_timeout(pause);
    }

    fn run(&mut self, begun: &Sender<()>) -> io::Result<()> {
        let mut sockets = Vec::new();
        for _ in 0..self.attack.connections {
            sockets.push(self.connect()?);
        }
        let _ = begun.send(());
        while !self.is_over() {
            for socket in &mut sockets {
                if self.go_on(socket).is_err() {
                    *socket = self.connect()?;
                }
                if self.is_over() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        self.sent.connections += 1;
        socket.write_all(&self.attack.opening)?;
        self.sent.bytes += self.attack.opening.len() as u64;
        Ok(socket)
    }

    /// One step with one connection. An error means that it is over.
    fn go_on(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        match &self.attack.then {
            Then::Floods(piece) => {
                let reader = drain(socket)?;
                let flooded = flood(socket, piece, (&self.over, &mut self.sent.bytes));
                let _ = socket.shutdown(Shutdown::Both);
                let _ = reader.join();
                flooded
            }
            Then::Trickles(bytes, pause) => {
                socket.write_all(bytes)?;
                self.sent.bytes += bytes.len() as u64;
                // The pause is that of one connection, and there are many.
                self.wait(*pause / u32::try_from(self.attack.connections).unwrap_or(1));
                Ok(())
            }
            Then::Returns => {
                io::copy(socket, &mut io::sink())?;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Then::Waits => {
                self.wait(LOOK_EVERY);
                Ok(())
            }
        }
    }
}

/// Sends pieces until the attack is over or the connection is. Always an error, so that the next one is opened.
fn flood(
    socket: &mut TcpStream,
    piece: &dyn Fn(u32) -> Vec<u8>,
    (over, sent): (&Receiver<()>, &mut u64),
) -> io::Result<()> {
    let mut nth = 0;
    let mut bytes = Vec::new();
    while nth < STREAMS_MAX && over.try_recv() != Err(TryRecvError::Disconnected) {
        bytes.clear();
        while bytes.len() < WRITE_BYTES {
            bytes.extend(piece(nth));
            nth += 1;
        }
        socket.write_all(&bytes)?;
        *sent += bytes.len() as u64;
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Reads what the broker answers, on a thread of its own, so that a flood never waits for an answer.
fn drain(socket: &TcpStream) -> io::Result<JoinHandle<()>> {
    let mut socket = socket.try_clone()?;
    socket.set_read_timeout(None)?;
    thread::Builder::new().name("attacker-reader".into()).spawn(move || {
        let mut buffer = [0; 16 << 10];
        while matches!(socket.read(&mut buffer), Ok(1..)) {}
    })
}
