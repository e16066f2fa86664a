//! The shape of printed text: what stays the same from run to run.
//!
//! Per line: runs of blanks count as one, a number with its unit becomes `#`, an id becomes `@`. Empty
//! lines at the end do not count.

/// Units that follow a number and change with it.
const UNITS: [&str; 14] =
    ["s", "ms", "min", "h", "d", "B", "KiB", "MiB", "GiB", "kB/s", "MB/s", "s,", "kB/s,", "MB/s,"];

/// Fails with the first line that differs in shape.
pub(super) fn compare(expected: &[String], printed: &[String]) -> Result<(), String> {
    let (expected, printed) = (trimmed(expected), trimmed(printed));
    for index in 0..expected.len().max(printed.len()) {
        let (wanted, came) = (expected.get(index), printed.get(index));
        if wanted.map(|line| shape(line)) != came.map(|line| shape(line)) {
            let nothing = String::new();
            let (wanted, came) = (wanted.unwrap_or(&nothing), came.unwrap_or(&nothing));
            return Err(format!(
                "line {} of its output\n  README: {wanted}\n  now:    {came}",
                index + 1
            ));
        }
    }
    Ok(())
}

fn trimmed(lines: &[String]) -> &[String] {
    let kept = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    &lines[..kept]
}

fn shape(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let after_number = words.last() == Some(&"#");
        if is_id(word) {
            words.push("@");
        } else if is_number(word) {
            // `3 min 20 s` is one quantity, as `40 s` is.
            words.extend((!after_number).then_some("#"));
        } else if !(after_number && UNITS.contains(&word.trim_end_matches([',', ')', ';']))) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// A number, a time, an address, also as a link.
fn is_number(word: &str) -> bool {
    let word = word.strip_prefix("http://").unwrap_or(word);
    let word = word.trim_matches(['(', ')', ',', ';', ':', '.']);
    let has_digit = word.contains(|c: char| c.is_ascii_digit());
    has_digit
        && word
            .chars()
            .all(|c| c.is_ascii_digit() || [',', '.', ':', '-', '/', 'T', 'Z'].contains(&c))
}

/// A uuid, or a path with one in it.
fn is_id(word: &str) -> bool {
    word.split('/').any(|part| {
        let groups: Vec<usize> = part.split('-').map(str::len).collect();
        let hex = part.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        hex && groups == [8, 4, 4, 4, 12]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(a: &str, b: &str, is_same: bool) {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(compare(&lines(a), &lines(b)).is_ok(), is_same, "`{a}` and `{b}`");
    }

    #[test]
    fn numbers_ids_and_widths_may_differ() {
        same("wrote 9 records in 0.4 s, 12.1 MB/s", "wrote 1,234 records in 12 ms, 0.3 MB/s", true);
        same("lag  3 min 20 s  end", "lag 40 ms end", true);
        same(
            "m 0b7e1a52-9c2f-4f0e-8d63-0a5f7d1b2c3d x",
            "m 1b7e1a52-9c2f-4f0e-8d63-0a5f7d1b2c3e x",
            true,
        );
        same("listening   127.0.0.1:7070 (gRPC)", "listening  127.0.0.1:43112 (gRPC)", true);
        same("web  http://127.0.0.1:7080", "web  http://127.0.0.1:43112", true);
        same("web  http://127.0.0.1:7080", "web  off", false);
        same(
            "logs/0b7e1a52-9c2f-4f0e-8d63-0a5f7d1b2c3d/3 ok",
            "logs/1b7e1a52-9c2f-4f0e-8d63-0a5f7d1b2c3e/0 ok",
            true,
        );
        same("a\n\n", "a", true);
    }

    #[test]
    fn words_and_lines_may_not() {
        same("created topic", "made topic", false);
        same("a\nb", "a", false);
        same("a", "a\nb", false);
        same("PARTITION  LAG", "PARTITION  LAG  HOST", false);
        same("3 records", "3 lines", false);
    }
}
