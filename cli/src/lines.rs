//! Splits a stream into lines without copying them: large reads, each line a slice of its chunk.
//!
//! A line ends before its newline byte; a last line without newline is a line too; an empty line is an
//! empty line. Bytes are not looked at otherwise. Memory is bounded by the chunk size plus the longest
//! line allowed: a longer one is an error that names its number, never a growing buffer.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

/// Bytes asked of the source at once.
const READ_BYTES: usize = 1 << 20;

/// Reads chunks of whole lines.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    source: R,
    /// Read but not yet given out; holds no newline.
    rest: BytesMut,
    /// Longest line allowed.
    line_bytes_max: usize,
    /// Lines given out so far.
    line_count: u64,
    /// The source has ended.
    ended: bool,
}

/// Why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The source failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A line is longer than a record may be.
    #[error("line {number} is longer than {line_bytes_max} bytes")]
    TooLong {
        /// Number of the line, from 1.
        number: u64,
        /// The limit.
        line_bytes_max: usize,
    },
}

/// Whole lines that were read together.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Bytes,
}

impl<R: Read> LineReader<R> {
    pub(crate) fn new(source: R, line_bytes_max: usize) -> LineReader<R> {
        LineReader { source, rest: BytesMut::new(), line_bytes_max, line_count: 0, ended: false }
    }

    /// The next whole lines; `None` at the end. Waits for at least one line, and no longer than that:
    /// what a terminal or a slow pipe gives goes out at once.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>, LineError> {
        while !self.ended {
            let searched = self.rest.len();
            let read_count = self.fill()?;
            if read_count == 0 {
                self.ended = true;
                break;
            }
            if let Some(newline) = memchr::memrchr(b'\n', &self.rest[searched..]) {
                let whole = self.rest.split_to(searched + newline + 1).freeze();
                return self.chunk(whole).map(Some);
            }
            self.check_length(self.rest.len())?;
        }
        let last = self.rest.split().freeze();
        if last.is_empty() { Ok(None) } else { self.chunk(last).map(Some) }
    }

    /// Reads once behind `rest`.
    fn fill(&mut self) -> io::Result<usize> {
        let kept = self.rest.len();
        self.rest.resize(kept + READ_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.rest[kept..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.rest.truncate(kept + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Checks every line of a chunk and counts them.
    fn chunk(&mut self, bytes: Bytes) -> Result<Chunk, LineError> {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', &bytes) {
            self.check_length(newline - start)?;
            self.line_count += 1;
            start = newline + 1;
        }
        if start < bytes.len() {
            self.check_length(bytes.len() - start)?;
            self.line_count += 1;
        }
        Ok(Chunk { bytes })
    }

    fn check_length(&self, length: usize) -> Result<(), LineError> {
        if length <= self.line_bytes_max {
            return Ok(());
        }
        let number = self.line_count + 1;
        Err(LineError::TooLong { number, line_bytes_max: self.line_bytes_max })
    }
}

impl Chunk {
    /// Bytes of the chunk, newlines included.
    pub(crate) fn byte_count(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The lines, each a slice of the chunk.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start >= self.bytes.len() {
                return None;
            }
            let end = memchr::memchr(b'\n', &self.bytes[start..])
                .map_or(self.bytes.len(), |at| start + at);
            let line = self.bytes.slice(start..end);
            start = end + 1;
            Some(line)
        })
    }
}

/// Splits `line` at the first `separator` into key and value; without one there is no key.
pub(crate) fn split_key(line: &Bytes, separator: &[u8]) -> (Option<Bytes>, Bytes) {
    match memchr::memmem::find(line, separator) {
        Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
        None => (None, line.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the pieces one read at a time.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn read_all(source: impl Read, line_bytes_max: usize) -> Result<Vec<Bytes>, String> {
        let mut reader = LineReader::new(source, line_bytes_max);
        let mut lines = Vec::new();
        while let Some(chunk) = reader.next_chunk().map_err(|error| error.to_string())? {
            lines.extend(chunk.lines());
        }
        assert_eq!(reader.line_count, lines.len() as u64);
        Ok(lines)
    }

    #[track_caller]
    fn check(pieces: &[&'static [u8]], expected: &[&[u8]]) {
        assert_eq!(read_all(Pieces(pieces.to_vec()), 64).unwrap(), expected);
    }

    #[test]
    fn lines_come_out_whatever_the_reads_were() {
        check(&[], &[]);
        check(&[b"a\nb\n"], &[b"a", b"b"]);
        check(&[b"a\nb"], &[b"a", b"b"]);
        check(&[b"\n\n"], &[b"", b""]);
        check(&[b"a", b"b", b"\nc", b"\n"], &[b"ab", b"c"]);
        check(&[b"\xff\x00\r\n"], &[b"\xff\x00\r"]);
    }

    #[test]
    fn a_large_input_keeps_every_byte() {
        let text: Vec<u8> =
            (0..700_000_u32).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let lines = read_all(text.as_slice(), 64).unwrap();
        assert_eq!(lines.len(), 700_000);
        assert_eq!(lines[699_999], "line 699999");
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_not_buffered() {
        let text = b"ok\n12345678\n123456789\n".as_slice();
        assert_eq!(read_all(text, 8).unwrap_err(), "line 3 is longer than 8 bytes");
        assert_eq!(
            read_all(b"1\n123456789".as_slice(), 8).unwrap_err(),
            "line 2 is longer than 8 bytes"
        );
        let endless = io::repeat(b'x');
        assert_eq!(read_all(endless, 3 << 20).unwrap_err(), "line 1 is longer than 3145728 bytes");
    }

    #[test]
    fn the_key_ends_at_the_first_separator() {
        let split = |line: &'static str, separator: &str| {
            let (key, value) =
                split_key(&Bytes::from_static(line.as_bytes()), separator.as_bytes());
            (key.map(|key| key.to_vec()), value.to_vec())
        };
        assert_eq!(split("k:v:w", ":"), (Some(b"k".to_vec()), b"v:w".to_vec()));
        assert_eq!(split(":v", ":"), (Some(vec![]), b"v".to_vec()));
        assert_eq!(split("v", ":"), (None, b"v".to_vec()));
        assert_eq!(split("a=>b", "=>"), (Some(b"a".to_vec()), b"b".to_vec()));
    }
}
