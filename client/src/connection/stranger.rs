//! Who is there where no broker is, as far as its first byte tells.

use std::sync::{Arc, OnceLock};

/// The first byte of the other side, once it came.
///
/// A broker begins with a frame of HTTP/2, and so with the upper byte of a length that is at most
/// [`FRAME_BYTES`](super::dial::FRAME_BYTES). What is larger is somebody else's.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstByte(Arc<OnceLock<u8>>);

impl FirstByte {
    /// Takes what was read. Only the first byte of all counts.
    pub(super) fn note(&self, read: &[u8]) {
        if let Some(byte) = read.first() {
            self.0.get_or_init(|| *byte);
        }
    }

    /// Whether anything came.
    pub(super) fn came(&self) -> bool {
        self.0.get().is_some()
    }

    /// What the other side is, when it is surely no broker.
    pub(super) fn stranger(&self) -> Option<&'static str> {
        match self.0.get()? {
            // The type of a TLS record with an alert: how such a server answers what is no TLS.
            0x15 => Some("it speaks TLS, and brokers are spoken to without TLS"),
            b'H' => Some("it speaks HTTP/1, as web servers and the web door of a broker do"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::dial::FRAME_BYTES;

    #[test]
    fn the_first_byte_tells_a_stranger_from_a_broker() {
        let told = |first: &[u8], then: &[u8]| {
            let byte = FirstByte::default();
            byte.note(first);
            byte.note(then);
            byte.stranger()
        };
        assert_eq!(told(b"", b""), None, "nothing came");
        assert!(told(&[0x15, 3, 3, 0, 2], b"").is_some_and(|words| words.contains("TLS")));
        assert!(told(b"", b"HTTP/1.1 400").is_some_and(|words| words.contains("HTTP/1")));
        let largest = u8::try_from(FRAME_BYTES >> 16).unwrap();
        for byte in 0..=largest {
            assert_eq!(told(&[byte], &[0x15]), None, "a frame whose length begins with {byte}");
        }
    }
}
