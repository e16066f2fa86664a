//! HTTP/2 frames as bytes, also such as no client sends that keeps the rules.

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flags.
const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let [_, length @ ..] = number(length);
    [&length[..], &[kind, flags], &number(stream), payload].concat()
}

/// A number as frames carry it, the highest byte first.
pub(super) fn number(number: u32) -> [u8; 4] {
    [24, 16, 8, 0].map(|shift| u8::try_from(number >> shift & 0xff).unwrap_or(0))
}

/// The greeting of a client that grants each stream a window of so many bytes.
pub(super) fn greeting(window: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    let settings = [&INITIAL_WINDOW_SIZE[..], &number(window)].concat();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings), &frame(SETTINGS, ACK, 0, &[])].concat()
}

/// A header that is not to be kept; name and value of fewer than 127 bytes.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(0);
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The header block of a gRPC call.
pub(super) fn call(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "localhost"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// A whole call with this body, as frames of at most 16 KiB.
pub(super) fn whole_call(path: &str, stream: u32, message: &[u8]) -> Vec<u8> {
    const FRAME_BYTES: usize = 16_384;
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let body = [&[0], &number(length)[..], message].concat();
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(path));
    let mut pieces = body.chunks(FRAME_BYTES).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, flags, stream, piece));
    }
    bytes
}
