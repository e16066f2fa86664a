//! Reads a stream: what is there, or what comes within a time.

use std::time::Duration;

use bytes::Bytes;

use super::{Found, Position, Read, StreamError, StreamService, Tail, is_closing};
use crate::quota::{Room, Share};

/// Where to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The first record kept.
    Start,
    /// The end of the data.
    Now,
    /// A position that was told before.
    At(Position),
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// From where.
    pub from: From,
    /// How long to wait for data.
    pub wait: Duration,
    /// Most bytes; the first batch comes even when it has more.
    pub bytes_max: u32,
}

/// What was read.
#[derive(Debug)]
pub struct Chunk {
    /// Where it begins.
    pub start: Position,
    /// The data, append by append.
    pub values: Vec<Bytes>,
    /// Where to read on.
    pub next: Position,
    /// It is all there is.
    pub is_up_to_date: bool,
    /// Nothing follows any more.
    pub is_closed: bool,
    /// Given back when the data was made a reply of.
    pub shares: Vec<Share>,
}

impl StreamService {
    /// Reads from a stream. Data, the end of the stream, or the end of the wait: whatever comes first.
    ///
    /// # Errors
    /// When it cannot be read there.
    pub async fn read(
        &self,
        found: &Found,
        request: ReadRequest,
        room: &Room,
    ) -> Result<Chunk, StreamError> {
        // Who waits for data uses the stream too.
        let _usage = self.enter(found)?;
        let start = match request.from {
            From::At(position) => position,
            From::Start => {
                let partition = found.topic.partition(found.partition)?;
                found.position(partition.visible().log_start.0)
            }
            From::Now => {
                let Tail { position, is_closed } = self.tail(found, room).await?;
                if is_closed || request.wait.is_zero() {
                    return Ok(Chunk::nothing(position, is_closed));
                }
                position
            }
        };
        let mut chunk = Chunk { is_up_to_date: false, ..Chunk::nothing(start, false) };
        let (mut wait, mut left) = (request.wait, request.bytes_max);
        loop {
            let read = self.read_log(found, chunk.next, (wait, left), room).await?;
            let bytes = chunk.take(found, read);
            left = left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
            // A read of the log ends where one of its segments does; a chunk goes on.
            if chunk.is_up_to_date || bytes == 0 || left < request.bytes_max / 2 {
                return Ok(chunk);
            }
            wait = Duration::ZERO;
        }
    }
}

impl Chunk {
    fn nothing(at: Position, is_closed: bool) -> Chunk {
        Chunk {
            start: at,
            values: Vec::new(),
            next: at,
            is_up_to_date: true,
            is_closed,
            shares: Vec::new(),
        }
    }

    /// Takes in what was read after it. Returns the bytes of it.
    fn take(&mut self, found: &Found, read: Read) -> usize {
        let Read { records, visible, shares } = read;
        let (mut next, mut records) = (records.next_offset.0, records.records);
        let closing = records.pop_if(|last| found.topic.stream.is_some() && is_closing(last));
        if let Some(closing) = &closing {
            next = closing.offset.0;
        }
        self.is_closed = closing.is_some();
        self.next = found.position(next);
        self.is_up_to_date = self.is_closed || next >= visible.high_watermark.0;
        self.shares.extend(shares);
        let before = self.values.len();
        self.values.extend(records.into_iter().map(|one| one.record.value.unwrap_or_default()));
        self.values[before..].iter().map(Bytes::len).sum()
    }
}
