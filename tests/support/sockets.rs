//! The sockets that this machine has open, as Linux tells them; and endpoints that take connections and do little with them.

use std::{fs, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::client::in_time;

/// Between two looks at the table.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How many sockets connected to a port of 127.0.0.1 a process holds. What the system still sends for one that was closed does
/// not count.
fn connected_to(port: u16) -> usize {
    let table = fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let remote = format!("0100007F:{port:04X}");
    let is_held = |line: &&str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields[2] == remote && fields[9] != "0"
    };
    table.lines().skip(1).filter(is_held).count()
}

/// Waits until no process holds a socket connected to that port.
pub(crate) async fn none_connected_to(port: u16) {
    in_time(async {
        while connected_to(port) > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

/// What an endpoint does with a connection before it does nothing more.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Nothing.
    Accepts,
    /// It shakes hands, and reads nothing.
    ShakesHands(TlsAcceptor),
    /// It answers as soon as a request begins, and reads no further.
    Answers(&'static str),
}

/// An endpoint that keeps every connection open and does as little as that. It is gone once it is dropped.
pub(crate) struct Idler {
    pub(crate) address: SocketAddr,
    came: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl Idler {
    /// On a free port of 127.0.0.1, with as little room for what it does not read as the system lets it have.
    pub(crate) fn start(manner: Manner) -> Idler {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("set");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("free");
        let listener = socket.listen(64).expect("listens");
        let address = listener.local_addr().expect("bound");
        let (sender, came) = mpsc::channel(1_000);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                sender.try_send(()).expect("has room");
                connections.spawn(keep(socket, manner.clone()));
            }
        });
        Idler { address, came, task }
    }

    /// Waits for another connection.
    pub(crate) async fn connection(&mut self) {
        in_time(self.came.recv()).await.expect("listens");
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(socket: TcpStream, manner: Manner) {
    match manner {
        Manner::Accepts => idle(socket).await,
        Manner::ShakesHands(tls) => {
            if let Ok(socket) = tls.accept(socket).await {
                idle(socket).await;
            }
        }
        Manner::Answers(text) => answer(socket, text).await,
    }
}

async fn idle(_socket: impl AsyncRead + AsyncWrite) {
    std::future::pending().await
}

async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin, text: &str) {
    if socket.read_u8().await.is_ok() && socket.write_all(text.as_bytes()).await.is_ok() {
        idle(socket).await;
    }
}
