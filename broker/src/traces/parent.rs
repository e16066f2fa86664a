//! The header `traceparent` of [W3C Trace Context](https://www.w3.org/TR/trace-context/).
//!
//! ```text
//! 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//! version, trace, span of the caller, flags (bit 0: the caller records it)
//! ```
//!
//! A later version may have more behind the flags. `tracestate` is of other vendors, and nothing here.

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// The trace.
    pub(super) trace: [u8; 16],
    /// The span of the caller.
    pub(super) span: [u8; 8],
    /// Whether the caller records it.
    pub(super) is_sampled: bool,
}

impl Parent {
    /// Reads the header; `None` when it cannot be understood.
    pub(super) fn parse(header: &[u8]) -> Option<Parent> {
        let mut parts = header.splitn(5, |byte| *byte == b'-');
        let [version]: [u8; 1] = hex(parts.next()?)?;
        let (trace, span): ([u8; 16], [u8; 8]) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags]: [u8; 1] = hex(parts.next()?)?;
        let is_valid = match version {
            0 => parts.next().is_none(),
            version => version != 0xff,
        };
        let is_sampled = flags & 1 == 1;
        (is_valid && trace != [0; 16] && span != [0; 8]).then_some(Parent {
            trace,
            span,
            is_sampled,
        })
    }
}

/// Bytes of lower-case digits, exactly as many as there are.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? * 16 + digit(pair[1])?;
    }
    Some(bytes)
}
