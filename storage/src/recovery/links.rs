//! Whether each segment ends as its successor says.

use riverrun_proto::Offset;

use super::{Site, survey::FoundSegment, survey::Survey};
use crate::{
    Damage, DamageReason, IoFailure, StorageError,
    disk::OpenMode,
    format::{ENTRY_BYTES, EntryKind, HEADER_BLOCK_BYTES, Previous, SEAL_BYTES, SegmentFacts},
    scan::ChunkReader,
};

/// How `segment` ends by the word of `next`, when the two agree.
pub(super) fn end_of(
    site: Site<'_>,
    segment: &FoundSegment,
    next: &FoundSegment,
) -> Result<Result<Previous, DamageReason>, StorageError> {
    let (Some(_), Some((next_header, _))) = (segment.header, next.header) else {
        return Ok(Err(DamageReason::SegmentHeader));
    };
    let Some(previous) = next_header.previous else { return Ok(Err(DamageReason::Missing)) };
    if previous.base != segment.base {
        return Ok(Err(DamageReason::Missing));
    }
    if previous.facts.end_offset != next.base {
        return Ok(Err(DamageReason::Seal));
    }
    end_as(site, segment, &previous)
}

/// How `segment`, whose header is valid, ends, when its successor's word `previous` is true of it.
pub(super) fn end_as(
    site: Site<'_>,
    segment: &FoundSegment,
    previous: &Previous,
) -> Result<Result<Previous, DamageReason>, StorageError> {
    let Some((header, _)) = segment.header else { return Ok(Err(DamageReason::SegmentHeader)) };
    if !previous.is_possible() {
        return Ok(Err(DamageReason::Seal));
    }
    let at = |op| move |error| IoFailure::new(op, &segment.path, error);
    let file = site.disk.open(&segment.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    if header.stands_for == Some(*previous) {
        // Compaction wrote it anew: its own seal ends the file, and covers the same offsets.
        let end = seal_at_end(&mut reader, header.salt(), segment.base).map_err(at("read"))?;
        let end = end.filter(|end| end.facts.end_offset == previous.facts.end_offset);
        return Ok(end.ok_or(DamageReason::Seal));
    }
    if previous.end_pos > reader.end() {
        return Ok(Err(DamageReason::CutOff { len: reader.end(), expected: previous.end_pos }));
    }
    let agrees =
        !previous.sealed || is_sealed(&mut reader, header.salt(), previous).map_err(at("read"))?;
    Ok(if agrees { Ok(*previous) } else { Err(DamageReason::Seal) })
}

/// The end that the seal in the last bytes of a file tells.
fn seal_at_end(
    reader: &mut ChunkReader<'_>,
    salt: u64,
    base: Offset,
) -> std::io::Result<Option<Previous>> {
    let end_pos = reader.end();
    let Some(pos) = end_pos.checked_sub(SEAL_BYTES) else { return Ok(None) };
    let Some((_, chain)) = reader.entry_at(pos, salt)? else { return Ok(None) };
    let payload_len = usize::try_from(SEAL_BYTES).expect("small") - ENTRY_BYTES;
    let Some(payload) = reader.bytes(pos + ENTRY_BYTES as u64, payload_len)? else {
        return Ok(None);
    };
    let facts = SegmentFacts::decode(payload.try_into().expect("as long as facts"));
    let end = Previous { sealed: true, chain, base, end_pos, facts };
    Ok((end.is_possible() && is_sealed(reader, salt, &end)?).then_some(end))
}

/// True when the seal that `previous` tells of is there.
fn is_sealed(
    reader: &mut ChunkReader<'_>,
    salt: u64,
    previous: &Previous,
) -> std::io::Result<bool> {
    let Some(pos) = previous.end_pos.checked_sub(SEAL_BYTES) else { return Ok(false) };
    let Some((header, crc)) = reader.entry_at(pos, salt)? else { return Ok(false) };
    let payload_len = usize::try_from(SEAL_BYTES).expect("small") - ENTRY_BYTES;
    let holds = header.kind == EntryKind::Seal
        && crc == previous.chain
        && header.stride() == SEAL_BYTES
        && reader.payload_holds(pos, &header)?;
    let payload = reader.bytes(pos + ENTRY_BYTES as u64, payload_len)?;
    let facts = payload.and_then(|bytes| bytes.try_into().ok()).map(SegmentFacts::decode);
    Ok(holds && facts == Some(previous.facts))
}

/// Everything wrong with headers and links of segments that are durable as a whole: those that begin below `durable`.
pub(super) fn damages_below(
    site: Site<'_>,
    survey: &Survey,
    durable: Offset,
) -> Result<Vec<Damage>, StorageError> {
    let mut damages = Vec::new();
    for pair in survey.segments.windows(2).filter(|pair| pair[1].base < durable) {
        if pair[0].header.is_some() && pair[1].header.is_none() {
            // The second is what is wrong, and is named next.
            continue;
        }
        if let Err(reason) = end_of(site, &pair[0], &pair[1])? {
            let told = damage(&pair[0], pair[1].base, reason);
            let is_cut = matches!(reason, DamageReason::CutOff { .. });
            damages.push(if is_cut { behind_the_cut(site, &pair[0], told)? } else { told });
        }
    }
    if let Some(last) = survey.segments.iter().rfind(|segment| segment.base < durable)
        && last.header.is_none()
    {
        damages.push(damage(last, durable, DamageReason::SegmentHeader));
    }
    Ok(damages)
}

/// The damage `told` of a segment that was cut off, without the offsets before the cut.
fn behind_the_cut(
    site: Site<'_>,
    segment: &FoundSegment,
    told: Damage,
) -> Result<Damage, IoFailure> {
    let Some((header, _)) = segment.header else { return Ok(told) };
    let at = |op| move |error| IoFailure::new(op, &segment.path, error);
    let file = site.disk.open(&segment.path, OpenMode::Read).map_err(at("open"))?;
    let mut reader = ChunkReader::new(file.as_ref(), u64::MAX);
    let (mut pos, mut start) = (HEADER_BLOCK_BYTES as u64, segment.base);
    while let Some(entry) = reader.find_entry_from(pos, header.salt(), start).map_err(at("read"))? {
        pos = entry.pos + entry.header.stride();
        start = entry.header.end_offset();
    }
    // Without its seal alone the segment is damaged as a whole: nothing says that it has all its entries.
    let offsets = start..told.offsets.end;
    Ok(if offsets.is_empty() { told } else { Damage { offsets, pos, ..told } })
}

/// Something wrong with `segment`, whose successor begins at `end`.
fn damage(segment: &FoundSegment, end: Offset, reason: DamageReason) -> Damage {
    Damage { offsets: segment.base..end, path: segment.path.clone(), pos: 0, reason }
}
