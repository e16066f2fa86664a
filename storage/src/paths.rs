//! The only place that spells the file names of a partition's directory.

use std::path::{Path, PathBuf};

use riverrun_proto::Offset;

/// Small file with log start and epoch history.
pub(crate) const STATE: &str = "state";
/// Two-slot mark page.
pub(crate) const MARK: &str = "mark";
/// Side file that says how far compaction came.
pub(crate) const CLEANED: &str = "cleaned";
/// Ending of files that an interrupted step leaves behind; removed at open.
pub(crate) const TEMPORARY: &str = ".tmp";
/// The next segment while it has no base offset.
pub(crate) const NEXT_SEGMENT: &str = "next.tmp";
/// The next segment, made ahead of time beside the writer.
pub(crate) const PREPARED_SEGMENT: &str = "prepared.tmp";
/// The segment that a recovery writes before it takes its place.
pub(crate) const RECOVERED_SEGMENT: &str = "recovered.tmp";

/// What a file of the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment and its base offset.
    Segment(Offset),
    /// Sparse index of the segment with this base offset.
    Index(Offset),
    /// Producer state as of this offset.
    Producers(Offset),
    /// The state file.
    State,
    /// The mark page.
    Mark,
    /// How far compaction came.
    Cleaned,
    /// Bytes set aside from the segment with this base offset.
    Torn(Offset),
    /// Left by an interrupted step.
    Temporary,
    /// Not ours.
    Foreign,
}

impl FileName {
    /// Says what `name` is.
    pub(crate) fn parse(name: &str) -> FileName {
        match name {
            STATE => return FileName::State,
            MARK => return FileName::Mark,
            CLEANED => return FileName::Cleaned,
            _ if name.ends_with(TEMPORARY) => return FileName::Temporary,
            _ => {}
        }
        let Some((digits, ending)) = name.split_once('.') else { return FileName::Foreign };
        let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let Some(base) = digits.parse().ok().map(Offset).filter(|_| all_digits) else {
            return FileName::Foreign;
        };
        match ending {
            _ if base > Offset::MAX => FileName::Foreign,
            "log" => FileName::Segment(base),
            "index" => FileName::Index(base),
            "producers" => FileName::Producers(base),
            _ if ending.starts_with("torn-") => FileName::Torn(base),
            _ => FileName::Foreign,
        }
    }
}

/// `<base>.log`.
pub(crate) fn segment(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.log", base.0))
}

/// `<base>.index`.
pub(crate) fn index(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.index", base.0))
}

/// `<offset>.producers`.
pub(crate) fn producers(dir: &Path, as_of: Offset) -> PathBuf {
    dir.join(format!("{:020}.producers", as_of.0))
}

/// `<base>.torn-<n>`.
pub(crate) fn torn(dir: &Path, base: Offset, n: u32) -> PathBuf {
    dir.join(format!("{:020}.torn-{n}", base.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let dir = Path::new("");
        let name = |path: PathBuf| path.to_str().unwrap().to_owned();
        let base = Offset(42);
        assert_eq!(FileName::parse(&name(segment(dir, base))), FileName::Segment(base));
        assert_eq!(FileName::parse(&name(index(dir, base))), FileName::Index(base));
        assert_eq!(FileName::parse(&name(producers(dir, base))), FileName::Producers(base));
        assert_eq!(FileName::parse(&name(torn(dir, base, 3))), FileName::Torn(base));
        assert_eq!(FileName::parse(NEXT_SEGMENT), FileName::Temporary);
        for foreign in ["42.log", "0000000000000000000x.log", "99999999999999999999.log", "a", ""] {
            assert_eq!(FileName::parse(foreign), FileName::Foreign, "{foreign}");
        }
    }
}
