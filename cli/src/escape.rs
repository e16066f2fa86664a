//! Backslash escapes in command line arguments, where a shell passes `\t` as two characters.

/// Bytes of `text` with `\n`, `\t`, `\r`, `\0`, `\\` and `\xHH` replaced.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let (byte, length) = one(rest)?;
            plain.push(byte);
            rest = &rest[length..];
        } else {
            let (head, tail) = rest.split_at(c.len_utf8());
            plain.extend_from_slice(head.as_bytes());
            rest = tail;
        }
    }
    Ok(plain)
}

/// The byte meant by the escape at the head of `text`, and the length of the escape.
pub(crate) fn one(text: &str) -> Result<(u8, usize), String> {
    let letter = text.chars().nth(1);
    let byte = match letter {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits =
                text.get(2..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return byte
                .map(|byte| (byte, 4))
                .ok_or_else(|| "`\\x` needs two hex digits".to_owned());
        }
        Some(other) => {
            return Err(format!(
                "`\\{other}` is not an escape; there are \\n \\t \\r \\0 \\\\ \\xHH"
            ));
        }
        None => return Err("a backslash at the end escapes nothing; write \\\\ for one".to_owned()),
    };
    Ok((byte, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_bytes() {
        assert_eq!(bytes(r"a\tb\n\\\x00\xfFé"), Ok(b"a\tb\n\\\x00\xff\xc3\xa9".to_vec()));
        assert_eq!(bytes(""), Ok(Vec::new()));
    }

    #[test]
    fn wrong_escapes_are_refused() {
        for text in [r"\", r"\q", r"\x", r"\x1", r"\xzz", r"\x+1", r"\é", r"\x1é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
