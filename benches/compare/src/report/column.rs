//! What a table shows of each workload; the first column is what its chart shows.

use crate::case::Workload;

/// One figure in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its name among the figures.
    pub(super) key: &'static str,
    /// Its name for people, with the unit.
    pub(super) heading: &'static str,
}

const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading }
}

const RATE: Column = column("records_per_second", "records/s");
const MEGABYTES: Column = column("megabytes_per_second", "MB/s");
const CLIENT_PER_GB: Column = column("client_cpu_seconds_per_gb", "client CPU s/GB");
const SERVER_PER_GB: Column = column("server_cpu_seconds_per_gb", "server CPU s/GB");
const SERVER_PER_RECORD: Column = column("server_cpu_us_per_record", "server CPU µs/record");
const PEAK: Column = column("server_peak_mib", "server peak MiB");
const ANONYMOUS: Column = column("server_anonymous_mib", "of it no file, MiB");
const COUNT: Column = column("records", "records");
const P50: Column = column("p50_us", "p50 µs");
const P99: Column = column("p99_us", "p99 µs");
const P999: Column = column("p999_us", "p99.9 µs");
const MAX: Column = column("max_us", "max µs");
const SENT_LATE: Column = column("sent_late_p99_us", "sent late, p99 µs");
const WAITER: Column = column("kib_per_waiter", "KiB per waiting consumer");
const WAITERS: Column = column("waiters", "waiting consumers");
const WAITING: Column = column("mib_with_waiters", "MiB with them");
const WAITING_CORE: Column = column("core_percent_with_waiters", "% of a core");
const RESTING: Column = column("mib_at_rest", "MiB at rest");
const TOPICS: Column = column("topics", "topics");
const TOPICS_MIB: Column = column("mib_with_topics", "MiB with topics");
const TOPICS_CORE: Column = column("core_percent_with_topics", "% of a core with topics");
const FIRST_RECORD: Column = column("first_record_ms", "ms to the first record");
const LOST: Column = column("lost", "acknowledged records lost");

/// The columns of a workload.
pub(super) fn of(workload: Workload) -> &'static [Column] {
    match workload {
        Workload::W1 | Workload::W2 | Workload::W5 => {
            &[RATE, MEGABYTES, CLIENT_PER_GB, SERVER_PER_GB, PEAK, ANONYMOUS, COUNT]
        }
        Workload::W3 => &[P99, P50, P999, MAX, SENT_LATE, SERVER_PER_RECORD, PEAK],
        Workload::W4 => &[RATE, SERVER_PER_RECORD, CLIENT_PER_GB, PEAK, ANONYMOUS, COUNT],
        Workload::W6 => {
            &[WAITER, WAITERS, WAITING, WAITING_CORE, RESTING, TOPICS, TOPICS_MIB, TOPICS_CORE]
        }
        Workload::W7 => &[FIRST_RECORD, LOST, COUNT],
    }
}

/// A number for people: about three digits that count, thousands apart.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => {
            let power = 10_f64.powf(size.log10().floor() - 3.0);
            grouped(((value / power).round() * power).round())
        }
        size if size >= 100.0 => grouped(value.round()),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for (index, digit) in digits[first..].chars().enumerate() {
        if index % 3 == 0 && !text.is_empty() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_show_the_digits_that_count() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.327, "0.33"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234.0, "1,234"),
            (1_573_421.0, "1,573,000"),
            (100_000.0, "100,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
