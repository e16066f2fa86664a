//! How much a workload does: a number of records, or as many as a time allows.

use std::time::Duration;

use clap::Args;

use crate::{failure::Failure, units};

/// `--records` or `--duration`.
#[derive(Clone, Debug, Args)]
pub(super) struct AmountArgs {
    /// Records to send, over all producers [default: 1,000,000]
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Send for so long, in place of a number of records; the topic grows meanwhile
    #[arg(long, value_name = "DURATION", value_parser = parse_time)]
    duration: Option<Duration>,
}

/// How much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// So many records.
    Records(u64),
    /// What can be done in this time.
    Time(Duration),
}

impl AmountArgs {
    /// Fails when something was asked for, since a topic that was named is read as it is.
    pub(super) fn check_left_out(&self) -> Result<(), Failure> {
        let option = match (self.records, self.duration) {
            (None, None) => return Ok(()),
            (Some(_), _) => "--records",
            (None, Some(_)) => "--duration",
        };
        Err(Failure::usage(format!(
            "`{option}` says how much to write, and a topic that is named with --topic is read as \
             it is; leave one of them out"
        )))
    }

    /// What was asked for, or a million records.
    pub(super) fn amount(&self) -> Amount {
        match (self.records, self.duration) {
            (Some(count), _) => Amount::Records(count),
            (None, Some(time)) => Amount::Time(time),
            (None, None) => Amount::Records(1_000_000),
        }
    }
}

impl Amount {
    /// The part of one of `count` workers; the parts add up to the whole.
    pub(super) fn share(self, index: u32, count: u32) -> Amount {
        match self {
            Amount::Records(records) => Amount::Records(share(records, index, count)),
            Amount::Time(_) => self,
        }
    }

    /// The number of records, when it is known.
    pub(super) fn records(self) -> Option<u64> {
        match self {
            Amount::Records(records) => Some(records),
            Amount::Time(_) => None,
        }
    }
}

/// Part `index` of `total` cut into `count` parts that differ by one at most.
pub(super) fn share(total: u64, index: u32, count: u32) -> u64 {
    let (count, index) = (u64::from(count.max(1)), u64::from(index));
    total / count + u64::from(index < total % count)
}

/// Reads a duration of at least a millisecond.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    match units::parse_millis(text)? {
        0 => Err("must be more than 0".to_owned()),
        ms => Ok(Duration::from_millis(ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for (total, count) in [(0, 1), (1, 3), (10, 3), (1_000_001, 7)] {
            let shares: Vec<u64> = (0..count).map(|index| share(total, index, count)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
        let time = Amount::Time(Duration::from_secs(1));
        assert_eq!(time.share(1, 3), time);
    }
}
