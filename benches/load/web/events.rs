//! Server-sent events over a bare socket: what a browser does, without a browser's cost.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::error::{Error, Result};

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    socket: BufReader<TcpStream>,
    /// What came of the body and was not looked at.
    body: Vec<u8>,
}

impl Events {
    /// Opens the stream of a topic, from its end on.
    pub(super) async fn open(web: &str, topic: &str) -> Result<Events> {
        let mut socket = TcpStream::connect(web).await?;
        socket.set_nodelay(true)?;
        let request = format!(
            "GET /v1/topics/{topic}/events HTTP/1.1\r\nhost: {web}\r\naccept: text/event-stream\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut socket = BufReader::with_capacity(4 << 10, socket);
        let status = line(&mut socket).await?;
        if !status.starts_with("HTTP/1.1 200") {
            return Err(Error::Wrong(format!("`{topic}`: {status}")));
        }
        while !line(&mut socket).await?.is_empty() {}
        Ok(Events { socket, body: Vec::new() })
    }

    /// The data of the next event that has some.
    pub(super) async fn next(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                if let Some(data) = line.strip_prefix(b"data: ".as_slice()) {
                    return Ok(String::from_utf8_lossy(data).into_owned());
                }
                continue;
            }
            self.chunk().await?;
        }
    }

    /// Reads a chunk of the body.
    async fn chunk(&mut self) -> Result<()> {
        let size = line(&mut self.socket).await?;
        let size = usize::from_str_radix(size.trim(), 16);
        let size = size.map_err(|error| Error::Wrong(format!("a chunk's size: {error}")))?;
        if size == 0 {
            return Err(Error::Wrong("the stream of events ended".into()));
        }
        let start = self.body.len();
        self.body.resize(start + size, 0);
        self.socket.read_exact(&mut self.body[start..]).await?;
        line(&mut self.socket).await?;
        Ok(())
    }

    /// False when the other side has closed it.
    pub(super) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        match self.socket.get_ref().try_read(&mut byte) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

async fn line(socket: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Err(Error::Wrong("the connection was closed".into()));
    }
    Ok(line.trim_end().to_owned())
}
