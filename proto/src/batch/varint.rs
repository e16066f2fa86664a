//! Zigzag varints: small numbers of either sign in few bytes.
//!
//! Seven bits per byte, lowest first; the top bit says that more follow. Zigzag maps 0, -1, 1, -2 to
//! 0, 1, 2, 3. A 32-bit number takes at most 5 bytes and a 64-bit one at most 10; what would not fit is refused.

/// Most bytes of a 64-bit varint.
pub(super) const VARLONG_BYTES_MAX: usize = 10;
/// Most bytes of a 32-bit varint.
pub(super) const VARINT_BYTES_MAX: usize = 5;

/// Reads a 64-bit number at `*pos` and moves `pos` past it; `None` when it is cut or too long.
#[inline]
pub(super) fn read_i64(bytes: &[u8], pos: &mut usize) -> Option<i64> {
    let first = *bytes.get(*pos)?;
    if first < 0x80 {
        *pos += 1;
        return Some(unzigzag(u64::from(first)));
    }
    read_long(bytes, pos, VARLONG_BYTES_MAX).map(unzigzag)
}

/// Reads a 32-bit number at `*pos` and moves `pos` past it; `None` when it is cut or too long.
#[inline]
pub(super) fn read_i32(bytes: &[u8], pos: &mut usize) -> Option<i32> {
    let first = *bytes.get(*pos)?;
    if first < 0x80 {
        *pos += 1;
        let value = i32::from(first);
        return Some((value >> 1) ^ -(value & 1));
    }
    let raw = read_long(bytes, pos, VARINT_BYTES_MAX)?;
    let raw = u32::try_from(raw).ok()?;
    i32::try_from(unzigzag(u64::from(raw))).ok()
}

/// Reads more than one byte, at most `bytes_max`.
#[inline]
fn read_long(bytes: &[u8], pos: &mut usize, bytes_max: usize) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..bytes_max {
        let byte = *bytes.get(*pos + index)?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index;
        // The tenth byte has room for one bit only.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            *pos += index + 1;
            return Some(value);
        }
    }
    None
}

/// Bytes that `value` takes.
#[inline]
pub(super) fn len_i64(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value`. A 32-bit number reads back with [`read_i32`] as well: the two share their form.
#[inline]
pub(super) fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_bits(rest));
}

/// The lowest seven bits.
#[inline]
fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Maps numbers near zero, of either sign, to small ones.
#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: i64, bytes: &[u8]) {
        let mut out = Vec::new();
        write_i64(&mut out, value);
        assert_eq!(out, bytes);
        assert_eq!(len_i64(value), bytes.len());
        let mut pos = 0;
        assert_eq!(read_i64(bytes, &mut pos), Some(value));
        assert_eq!(pos, bytes.len());
        let mut pos = 0;
        let narrow = i32::try_from(value).ok();
        assert_eq!(read_i32(bytes, &mut pos), narrow);
        for cut in 0..bytes.len() {
            assert_eq!(read_i64(&bytes[..cut], &mut 0), None);
        }
    }

    #[test]
    fn numbers_have_their_published_form() {
        check(0, &[0]);
        check(-1, &[1]);
        check(1, &[2]);
        check(63, &[0x7e]);
        check(-64, &[0x7f]);
        check(64, &[0x80, 0x01]);
        check(-65, &[0x81, 0x01]);
        check(8191, &[0xfe, 0x7f]);
        check(8192, &[0x80, 0x80, 0x01]);
        check(i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::from(i32::MAX) + 1, &[0x80, 0x80, 0x80, 0x80, 0x10]);
        check(i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        check(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn overlong_numbers_are_refused() {
        assert_eq!(read_i64(&[0xff; 11], &mut 0), None);
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &mut 0), None);
        let mut tenth_too_large = [0xff; 10];
        tenth_too_large[9] = 0x02;
        assert_eq!(read_i64(&tenth_too_large, &mut 0), None);
    }
}
