//! HTTP/1.1 by hand over a socket: what is sent is exactly what the test says, and what comes is read as it comes.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// A reply that has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) socket: BufReader<TcpStream>,
}

/// Status line and headers.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

/// A whole reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Head {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Fails unless it has this status; gives its JSON.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.head.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Fails unless it is a problem with this status and code whose message holds every part.
    #[track_caller]
    pub(crate) fn refused(&self, (status, code): (u16, &str), parts: &[&str]) {
        let json = self.ok(status);
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(json["code"], code, "{json}");
        let message = json["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "`{part}` is missing in `{message}`");
        }
    }
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Http {
        Http { socket: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(DEADLINE, self.socket.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// Sends a request: `METHOD /path` and further header lines.
    pub(crate) async fn ask(&mut self, line: &str, headers: &[&str], body: &[u8]) {
        let mut text = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        self.send([text.as_bytes(), body].concat()).await;
    }

    /// The head of the next reply.
    pub(crate) async fn head(&mut self) -> Head {
        let first = self.line().await.expect("a reply");
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await.expect("headers");
            if line.is_empty() {
                return Head { status, headers };
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next reply as a whole; `HEAD` and 204 have no body.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let mut body = Vec::new();
        if head.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        } else if let Some(length) = head.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            timeout(DEADLINE, self.socket.read_exact(&mut body)).await.unwrap().unwrap();
        }
        Reply { head, body }
    }

    /// The next chunk of a chunked body; `None` at its end, or when the connection is cut.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await?, 16).unwrap();
        let mut chunk = vec![0; length];
        let read = timeout(DEADLINE, self.socket.read_exact(&mut chunk)).await.unwrap();
        // A connection that is cut in the midst of a chunk has ended too.
        read.ok()?;
        self.line().await?;
        (length > 0).then_some(chunk)
    }

    /// A line without its end; `None` when the connection is closed.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match timeout(DEADLINE, self.socket.read_u8()).await.expect("something in time") {
                Ok(b'\n') => break,
                Ok(byte) => line.push(byte),
                Err(_) => return None,
            }
        }
        Some(String::from_utf8(line).unwrap().trim_end_matches('\r').to_owned())
    }

    /// Waits until the other end closes, and gives what came before.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        drop(timeout(DEADLINE, self.socket.read_to_end(&mut rest)).await.expect("closed in time"));
        rest
    }
}

/// One request on a connection of its own.
pub(crate) async fn call(address: SocketAddr, line: &str, body: &[u8]) -> Reply {
    call_with(address, line, &["content-type: application/json"], body).await
}

/// One request with headers on a connection of its own.
pub(crate) async fn call_with(
    address: SocketAddr,
    line: &str,
    headers: &[&str],
    body: &[u8],
) -> Reply {
    let mut http = Http::connect(address).await;
    http.ask(line, headers, body).await;
    http.reply().await
}
