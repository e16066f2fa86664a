//! Requests that were refused, by the code they were refused with.

use riverrun_proto::grpc::v1::ErrorCode;

use super::Counter;

/// Codes there may be, and some to spare: an array of them is indexed by code.
const CODES_MAX: usize = 64;

/// Refusals by code, over all doors.
#[derive(Debug)]
pub struct Refusals {
    by_code: [Counter; CODES_MAX],
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { by_code: std::array::from_fn(|_| Counter::default()) }
    }
}

impl Refusals {
    /// Enters one refusal. A number that is no code counts as `UNSPECIFIED`.
    pub fn count(&self, code: i32) {
        let known = ErrorCode::try_from(code).unwrap_or(ErrorCode::Unspecified);
        let index = usize::try_from(known as i32).unwrap_or(0);
        if let Some(counter) = self.by_code.get(index) {
            counter.add(1);
        }
    }

    /// Every code there is, by name, and how often it was told.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        (0..).zip(&self.by_code).filter_map(|(code, counter)| {
            let name = ErrorCode::try_from(code).ok()?.as_str_name();
            Some((name.strip_prefix("ERROR_CODE_").unwrap_or(name), counter.get()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_by_name() {
        let refusals = Refusals::default();
        refusals.count(ErrorCode::DiskFull as i32);
        refusals.count(ErrorCode::DiskFull as i32);
        refusals.count(-1);
        refusals.count(i32::MAX);
        let told = |wanted: &str| refusals.by_code().find(|(code, _)| *code == wanted);
        assert_eq!(told("DISK_FULL"), Some(("DISK_FULL", 2)));
        assert_eq!(told("UNSPECIFIED"), Some(("UNSPECIFIED", 2)));
        assert_eq!(told("READ_ONLY"), Some(("READ_ONLY", 0)));
        assert_eq!(refusals.by_code().filter(|(_, count)| *count > 0).count(), 2);
    }

    #[test]
    fn there_is_room_for_every_code() {
        let beyond = (CODES_MAX..10_000).map(|code| i32::try_from(code).unwrap());
        assert_eq!(beyond.filter(|code| ErrorCode::try_from(*code).is_ok()).count(), 0);
    }
}
