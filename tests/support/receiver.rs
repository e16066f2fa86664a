//! A receiver of webhooks over plain sockets: keeps what comes, and answers as it is told, badly too.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use riverrun_tests::ports::lasting_address;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::client::in_time;

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    /// `POST /path HTTP/1.1`.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A head of this status and these header lines, and an empty body.
    Head(u16, Vec<String>),
    /// A head of this status and an empty body, once there is a permit.
    When(Arc<Semaphore>, u16),
    /// Nothing at all.
    Silence,
    /// The connection is closed instead.
    Cut,
    /// A head of this status that promises a body, a piece of it, and the end of the connection.
    HalfBody(u16),
    /// These bytes and nothing more.
    Piece(String),
    /// These bytes, and then these over and over again.
    Endless(String, String),
}

/// A status alone.
pub(crate) fn status(status: u16) -> Answer {
    Answer::Head(status, Vec::new())
}

type Plan = Box<dyn FnMut(&Hook) -> Answer + Send>;

/// The receiver. It is gone with its connections once it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    book: Arc<Book>,
    task: JoinHandle<()>,
}

struct Book {
    /// Connections so far.
    connections: Mutex<usize>,
    /// Requests that are not answered yet, and the most there were.
    busy: Mutex<(usize, usize)>,
    plan: Mutex<Plan>,
    hooks: Mutex<Vec<Hook>>,
    came: Notify,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("hooks", &self.hooks.lock().len()).finish_non_exhaustive()
    }
}

impl Book {
    fn begin(&self) {
        let mut busy = self.busy.lock();
        busy.0 += 1;
        busy.1 = busy.1.max(busy.0);
    }
}

impl Hook {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }
}

impl Receiver {
    /// One on a free port of 127.0.0.1 that answers by `plan`.
    pub(crate) async fn start(plan: impl FnMut(&Hook) -> Answer + Send + 'static) -> Receiver {
        Receiver::start_at(lasting_address(), plan).await
    }

    /// One at this address.
    pub(crate) async fn start_at(
        address: SocketAddr,
        plan: impl FnMut(&Hook) -> Answer + Send + 'static,
    ) -> Receiver {
        Receiver::start_with(address, None, plan).await
    }

    /// One on a free port of every address that speaks TLS.
    pub(crate) async fn start_tls(
        tls: TlsAcceptor,
        plan: impl FnMut(&Hook) -> Answer + Send + 'static,
    ) -> Receiver {
        Receiver::start_with("0.0.0.0:0".parse().expect("an address"), Some(tls), plan).await
    }

    async fn start_with(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        plan: impl FnMut(&Hook) -> Answer + Send + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind(address).await.expect("free");
        let address = listener.local_addr().expect("bound");
        let book = Arc::new(Book {
            connections: Mutex::default(),
            busy: Mutex::default(),
            plan: Mutex::new(Box::new(plan)),
            hooks: Mutex::default(),
            came: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, tls, book.clone()));
        Receiver { address, book, task }
    }

    /// Where it is posted to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/in?a=b", self.address)
    }

    /// Answers by another plan from now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Hook) -> Answer + Send + 'static) {
        *self.book.plan.lock() = Box::new(plan);
    }

    /// What came so far.
    pub(crate) fn came(&self) -> Vec<Hook> {
        self.book.hooks.lock().clone()
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        *self.book.connections.lock()
    }

    /// Most requests that were there at once.
    pub(crate) fn busiest(&self) -> usize {
        self.book.busy.lock().1
    }

    /// Waits until what came looks as it should.
    pub(crate) async fn until(&self, is_so: impl Fn(&[Hook]) -> bool) -> Vec<Hook> {
        in_time(async {
            loop {
                let came = self.book.came.notified();
                let hooks = self.came();
                if is_so(&hooks) {
                    return hooks;
                }
                came.await;
            }
        })
        .await
    }

    /// Waits for so many requests.
    pub(crate) async fn count(&self, count: usize) -> Vec<Hook> {
        self.until(|hooks| hooks.len() >= count).await
    }

    /// Dies: nothing listens any more, and every connection is cut.
    pub(crate) async fn die(self) -> SocketAddr {
        let address = self.address;
        self.task.abort();
        // Its sockets are closed once it has ended.
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
        address
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let (tls, book) = (tls.clone(), book.clone());
                *book.connections.lock() += 1;
                connections.spawn(async move {
                    match tls {
                        None => serve(socket, book).await,
                        // A client that does not trust the certificate goes away.
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, book).await;
                            }
                        }
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers requests until there is none or the plan cuts the connection.
async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, book: Arc<Book>) {
    let mut socket = BufReader::new(socket);
    while let Some(hook) = read(&mut socket).await {
        book.begin();
        let answer = (book.plan.lock())(&hook);
        book.hooks.lock().push(hook);
        book.came.notify_waiters();
        let mut again = None;
        let text = match answer {
            Answer::Head(status, lines) => head(status, 0, &lines),
            Answer::When(permits, status) => {
                permits.acquire().await.expect("open").forget();
                head(status, 0, &[])
            }
            Answer::Silence => std::future::pending().await,
            Answer::Cut => return,
            Answer::HalfBody(status) => {
                let text = format!("{}half", head(status, 100, &[]));
                drop(socket.write_all(text.as_bytes()).await);
                return;
            }
            Answer::Piece(text) => text,
            Answer::Endless(text, more) => {
                again = Some(more);
                text
            }
        };
        // Counted before the answer can be seen.
        book.busy.lock().0 -= 1;
        if socket.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        if let Some(more) = again {
            while socket.write_all(more.as_bytes()).await.is_ok() {}
            return;
        }
    }
}

fn head(status: u16, length: usize, lines: &[String]) -> String {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    lines.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
    text + "\r\n"
}

async fn read(socket: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Hook> {
    let line = read_line(socket).await?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(socket).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut hook = Hook { line, headers, body: Vec::new() };
    let length = hook.header("content-length").map_or(0, |text| text.parse().expect("a number"));
    hook.body.resize(length, 0);
    socket.read_exact(&mut hook.body).await.ok()?;
    Some(hook)
}

async fn read_line(socket: &mut BufReader<impl AsyncRead + Unpin>) -> Option<String> {
    let mut line = String::new();
    let read = socket.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}
