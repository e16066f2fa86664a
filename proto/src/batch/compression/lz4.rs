//! LZ4 in its frame format: one frame, 64 KiB blocks that stand alone, no content checksum (the batch has one).

use std::io::{self, BufRead, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Fault, make_room};

/// First bytes of a frame; the older legacy frames are not part of Kafka's format.
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Appends `input` to `out`, compressed.
pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(input)?;
    encoder.finish().map_err(io::Error::from)?;
    Ok(())
}

/// Inflates the one frame that fills `input`.
pub(super) fn inflate(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, Fault> {
    if !input.starts_with(&MAGIC) {
        return Err(Fault::Damaged);
    }
    let mut out = Vec::new();
    let mut decoder = FrameDecoder::new(input);
    // Block by block, so that the walk ends at the frame's end mark and never starts a second frame.
    loop {
        let block = decoder.fill_buf().map_err(|_| Fault::Damaged)?;
        if block.is_empty() {
            break;
        }
        let bytes = block.len();
        if bytes > bytes_max - out.len() {
            return Err(Fault::TooLarge);
        }
        make_room(&mut out, bytes, bytes_max);
        out.extend_from_slice(block);
        decoder.consume(bytes);
    }
    if decoder.get_ref().is_empty() { Ok(out) } else { Err(Fault::Damaged) }
}
