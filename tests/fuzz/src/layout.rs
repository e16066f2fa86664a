//! The bytes of a log's files as docs/storage-format.md draws them, as far as it takes to put checksums and links right.
//!
//! With right checksums the fuzzer reaches what they protect. What is put right is what a writer derives from the rest: checksums,
//! salts, and with `LINK` what one file says about the end of another. Everything else stays as it came.

use std::sync::LazyLock;

/// Bytes of a segment's header block.
pub(crate) const BLOCK_BYTES: usize = 4_096;
/// Bytes of the header block that are in use: an input leaves out the others.
pub(crate) const BLOCK_USED_BYTES: usize = 224;
/// Bytes of an entry header.
const ENTRY_BYTES: usize = 96;
/// Kind of an entry that holds a batch, and of a seal.
const RECORDS: u8 = 1;
const SEAL: u8 = 2;
/// Bytes of a batch header, and where its checksum begins.
const BATCH_HEADER_BYTES: usize = 61;
const BATCH_CRC_FROM: usize = 21;
/// Bytes of a seal with its facts.
const FACTS_BYTES: usize = 48;
/// Bytes of a slot of the mark page.
const SLOT_BYTES: usize = 512;

/// Where a segment ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Base offset of the segment.
    pub(crate) base: u64,
    /// Position behind its last entry.
    pub(crate) pos: u64,
    /// Header checksum of its last entry.
    pub(crate) chain: u32,
    /// Offset behind its last entry.
    pub(crate) offset: u64,
    /// What it holds, the seal not counted.
    pub(crate) facts: [u8; FACTS_BYTES],
    /// It ends with a seal.
    pub(crate) sealed: bool,
}

/// Puts length, magic and checksum of one batch right.
pub(crate) fn mend_batch(batch: &mut [u8]) {
    if batch.len() < BATCH_HEADER_BYTES {
        return;
    }
    let length = u32::try_from(batch.len() - 12).expect("a short input");
    put(batch, 8, &be32(length));
    batch[16] = 2;
    let crc = crc32c(&batch[BATCH_CRC_FROM..]);
    put(batch, 17, &be32(crc));
}

/// Puts salt and checksums of a segment file right, from the header block along its entries, and says where it ends. With `before` the
/// header says how that segment ends.
pub(crate) fn mend_segment(file: &mut [u8], before: Option<&End>) -> Option<End> {
    let block = file.get_mut(..BLOCK_BYTES)?;
    put(block, 0, b"RIVERLOG");
    put(block, 8, &1_u32.to_le_bytes());
    if let Some(before) = before {
        put(block, 72, &(if before.sealed { 1_u32 } else { 2 }).to_le_bytes());
        put(block, 76, &before.chain.to_le_bytes());
        put(block, 80, &before.base.to_le_bytes());
        put(block, 88, &before.pos.to_le_bytes());
        put(block, 96, &before.facts);
    }
    let salt = salt(block);
    put(block, 48, &salt.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[8..12]);
    hasher.update(&block[16..]);
    let crc = hasher.finalize();
    put(block, 12, &crc.to_le_bytes());
    let base = u64_at(block, 40);
    let mut end =
        End { base, pos: 0, chain: crc, offset: base, facts: [0; FACTS_BYTES], sealed: false };
    put(&mut end.facts, 24, &i64::MIN.to_le_bytes());
    put(&mut end.facts, 32, &i64::MIN.to_le_bytes());
    put(&mut end.facts, 8, &base.to_le_bytes());
    let mut pos = BLOCK_BYTES;
    while let Some(next) = mend_entry(file, pos, salt, &mut end) {
        pos = next;
    }
    end.pos = pos as u64;
    Some(end)
}

/// Puts one entry right; gives where the next one begins, or `None` where there is none.
fn mend_entry(file: &mut [u8], pos: usize, salt: u64, end: &mut End) -> Option<usize> {
    let entry = file.get(pos..pos + ENTRY_BYTES)?;
    let length = usize::try_from(u32_at(entry, 12)).ok()?;
    let kind = entry[9];
    if kind == 0 || entry.iter().all(|byte| *byte == 0) {
        return None;
    }
    let next = pos.checked_add(ENTRY_BYTES)?.checked_add(length)?.next_multiple_of(8);
    let payload = file.get_mut(pos + ENTRY_BYTES..pos + ENTRY_BYTES + length)?;
    if kind == SEAL && length == FACTS_BYTES {
        payload.copy_from_slice(&end.facts);
    }
    let payload_crc = if kind == RECORDS && length >= BATCH_HEADER_BYTES {
        mend_batch(payload);
        crc32c(&payload[BATCH_CRC_FROM..])
    } else {
        crc32fast::hash(payload)
    };
    let entry = &mut file[pos..pos + ENTRY_BYTES];
    put(entry, 0, b"RRen");
    entry[8] = 1;
    put(entry, 76, &payload_crc.to_le_bytes());
    put(entry, 80, &salt.to_le_bytes());
    put(entry, 88, &end.chain.to_le_bytes());
    let crc = crc32fast::hash(&entry[8..]);
    put(entry, 4, &crc.to_le_bytes());
    end.chain = crc;
    end.sealed = kind == SEAL;
    if !end.sealed {
        count_entry(entry, crc, next - pos, end);
    }
    Some(next)
}

/// Adds an entry to what the segment holds.
fn count_entry(entry: &[u8], crc: u32, stride: usize, end: &mut End) {
    let count = u64::from(u32_at(entry, 24));
    end.offset = u64_at(entry, 16).saturating_add(count);
    let facts = &mut end.facts;
    let records = u64_at(facts, 0).saturating_add(count);
    put(facts, 0, &records.to_le_bytes());
    put(facts, 8, &end.offset.to_le_bytes());
    let bytes = u64_at(facts, 16) + stride as u64;
    put(facts, 16, &bytes.to_le_bytes());
    if count > 0 {
        let newest = i64_at(facts, 24).max(i64_at(entry, 48));
        put(facts, 24, &newest.to_le_bytes());
    }
    let appended = i64_at(facts, 32).max(i64_at(entry, 40));
    put(facts, 32, &appended.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(u32_at(facts, 40));
    hasher.update(&crc.to_le_bytes());
    put(facts, 40, &hasher.finalize().to_le_bytes());
}

/// Puts both slots of a mark page right. With `end` the newest is said to be there.
pub(crate) fn mend_mark(page: &mut [u8], end: Option<&End>) {
    for slot in page.chunks_exact_mut(SLOT_BYTES) {
        put(slot, 0, b"RIVERMRK");
        put(slot, 8, &1_u32.to_le_bytes());
        if let Some(end) = end {
            put(slot, 28, &end.chain.to_le_bytes());
            put(slot, 32, &end.offset.to_le_bytes());
            put(slot, 40, &end.base.to_le_bytes());
            put(slot, 48, &end.pos.to_le_bytes());
        }
        let crc = crc32fast::hash(&slot[16..64]);
        put(slot, 12, &crc.to_le_bytes());
    }
}

/// Puts the checksum of a side file right: its magic, and a length that follows from the count at `count_at`.
pub(crate) fn mend_side(
    file: &mut [u8],
    magic: &[u8; 8],
    (head, each, count_at): (usize, usize, usize),
) {
    if file.len() < head {
        return;
    }
    put(file, 0, magic);
    put(file, 8, &1_u32.to_le_bytes());
    let count = usize::try_from(u32_at(file, count_at)).unwrap_or(usize::MAX);
    let end = count.saturating_mul(each).saturating_add(head).min(file.len());
    let crc = crc32fast::hash(&file[16..end]);
    put(file, 12, &crc.to_le_bytes());
}

/// Shapes of side files: bytes of the head, bytes of each part, where their count stands.
pub(crate) const STATE: (&[u8; 8], (usize, usize, usize)) = (b"RIVERSTA", (32, 16, 24));
pub(crate) const INDEX: (&[u8; 8], (usize, usize, usize)) = (b"RIVERIDX", (88, 16, 36));
pub(crate) const PRODUCERS: (&[u8; 8], (usize, usize, usize)) = (b"RIVERPRD", (32, 104, 24));

/// Says in an index file that it describes the segment that ends at `end`.
pub(crate) fn link_index(file: &mut [u8], end: &End) {
    if file.len() < 36 {
        return;
    }
    put(file, 16, &end.base.to_le_bytes());
    put(file, 24, &end.pos.to_le_bytes());
    put(file, 32, &end.chain.to_le_bytes());
}

/// The number that marks the entries of a segment.
fn salt(block: &[u8]) -> u64 {
    let mut identity = [0; 48];
    put(&mut identity, 0, &block[16..40]);
    put(&mut identity, 24, &block[40..48]);
    put(&mut identity, 32, &block[56..64]);
    let low = crc32fast::hash(&identity);
    identity[40] = 1;
    let high = crc32fast::hash(&identity[1..]);
    u64::from(high) << 32 | u64::from(low)
}

/// CRC-32C.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
        let mut table = [0; 256];
        for (slot, byte) in table.iter_mut().zip(0_u32..) {
            *slot = (0..8)
                .fold(byte, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 });
        }
        table
    });
    !bytes
        .iter()
        .fold(!0, |crc: u32, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

/// Big-endian, as a batch has its numbers.
fn be32(number: u32) -> [u8; 4] {
    [24, 16, 8, 0].map(|shift| (number >> shift & 0xff) as u8)
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

fn i64_at(block: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}
