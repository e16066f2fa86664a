//! From what was seen to text, family by family.

use std::time::Duration;

use super::{
    MetricsService,
    gather::{GroupPartitionSeen, GroupSeen, PartitionSeen, Seen, SubscriptionSeen, TopicSeen},
};
use crate::{
    metrics::{
        Exposition, Family, Traffic,
        exposition::{Samples, Value},
        families::*,
        process::ProcessFacts,
        web::{CLASSES, CallSeen},
    },
    partition::PartitionFacts,
    quota::Quota,
    service::delivery::webhook::WebhookState,
};

/// Quotas of this ending bound bytes.
const BYTES_ENDING: &str = "_bytes_max";
/// The label `door` of requests of the web door.
const WEB: &str = "web";

impl MetricsService {
    /// The text of what was seen, which took so long to gather.
    pub(super) fn text(&self, seen: &Seen, took: Duration) -> String {
        let mut text = Exposition::default();
        let by_partition = self.options.partition_labels;
        topics(&mut text, &seen.topics);
        if by_partition {
            partitions(&mut text, &seen.topics);
        }
        traffic(&mut text, &seen.topics, by_partition);
        self.writing(&mut text);
        self.damage_found(&mut text);
        damage(&mut text, &seen.topics, by_partition);
        groups(&mut text, &seen.groups, by_partition);
        subscriptions(&mut text, &seen.subscriptions);
        webhooks(&mut text, &seen.subscriptions);
        let durations = self.rooms.delivery.webhook_durations().snapshot();
        text.family(&WEBHOOK_DURATION, |samples| samples.add_histogram(&[], &durations));
        self.doors(&mut text);
        self.spans(&mut text);
        self.quotas(&mut text);
        self.disk(&mut text);
        self.process(&mut text);
        text.single(&SCRAPE_DURATION, took.as_secs_f64());
        text.single(&SCRAPE_SKIPPED, seen.skipped);
        if self.options.kafka_exporter_names {
            kafka_names(&mut text, seen);
        }
        text.finish()
    }

    fn writing(&self, text: &mut Exposition) {
        let writing = &self.rooms.writing;
        for (family, times) in [
            (&APPEND_DURATION, &writing.append_duration),
            (&FLUSH_DURATION, &writing.flush_duration),
            (&GROUP_COMMIT_RECORDS, &writing.group_commit_records),
        ] {
            text.family(family, |samples| samples.add_histogram(&[], &times.snapshot()));
        }
    }

    fn damage_found(&self, text: &mut Exposition) {
        text.single(&SCRUB_BYTES, self.scrubbing.bytes.get());
        text.single(&SCRUB_PASSES, self.scrubbing.passes.get());
        text.single(&SCRUB_DAMAGES, self.scrubbing.damages.get());
    }

    fn doors(&self, text: &mut Exposition) {
        let doors = self.doors.lock().clone();
        text.family(&CONNECTIONS, |samples| {
            doors.iter().for_each(|door| samples.add(&[&door.name()], door.connections()));
        });
        text.family(&CONNECTIONS_OPENED, |samples| {
            doors.iter().for_each(|door| samples.add(&[&door.name()], door.connections_opened()));
        });
        text.family(&CONNECTIONS_REFUSED, |samples| {
            doors.iter().for_each(|door| samples.add(&[&door.name()], door.connections_refused()));
        });
        let web = self.web.get();
        let calls = web.map(|web| web.seen()).unwrap_or_default();
        text.family(&REQUEST_DURATION, |samples| {
            for door in &doors {
                for (api, times) in door.durations() {
                    samples.add_histogram(&[&door.name(), &api], &times);
                }
            }
            for CallSeen { name, durations, .. } in &calls {
                samples.add_histogram(&[&WEB, name], durations);
            }
        });
        text.family(&WEB_REQUESTS, |samples| {
            for CallSeen { name, answered, .. } in &calls {
                for (class, count) in CLASSES.iter().zip(answered).filter(|(_, count)| **count > 0)
                {
                    samples.add(&[name, class], *count);
                }
            }
        });
        text.family(&WEB_REQUESTS_IN_FLIGHT, |samples| {
            optional(samples, web.map(|web| web.in_flight()));
        });
        text.family(&REQUESTS_REFUSED, |samples| {
            self.refusals.by_code().for_each(|(code, count)| samples.add(&[&code], count));
        });
    }

    fn spans(&self, text: &mut Exposition) {
        let meter = self.traces().meter();
        text.family(&TRACE_SPANS, |samples| {
            if let Some(meter) = meter {
                samples.add(&[&"exported"], meter.exported.get());
                samples.add(&[&"lost"], meter.lost.get());
            }
        });
    }

    fn quotas(&self, text: &mut Exposition) {
        let quotas = self.quotas.lock().clone();
        let (bytes, places): (Vec<Quota>, Vec<Quota>) =
            quotas.into_iter().partition(|quota| quota.name().ends_with(BYTES_ENDING));
        for (used, limit, quotas) in
            [(&QUOTA_USED_BYTES, &QUOTA_LIMIT_BYTES, bytes), (&QUOTA_USED, &QUOTA_LIMIT, places)]
        {
            text.family(used, |samples| {
                quotas.iter().for_each(|quota| samples.add(&[&quota.name()], quota.used()));
            });
            text.family(limit, |samples| {
                quotas.iter().for_each(|quota| samples.add(&[&quota.name()], quota.limit()));
            });
        }
    }

    fn disk(&self, text: &mut Exposition) {
        let gauge = &self.rooms.gauge;
        text.family(&DISK_FREE_BYTES, |samples| optional(samples, gauge.free_bytes()));
        text.single(&DISK_RESERVE_BYTES, gauge.state().free_bytes_min);
        text.single(&DISK_FULL, gauge.check().is_err());
        text.single(&DISK_FAILED, gauge.device().failure().is_some());
    }

    fn process(&self, text: &mut Exposition) {
        text.family(&BUILD, |samples| samples.add(&[&env!("CARGO_PKG_VERSION")], 1_u64));
        text.single(&PROCESS_START_TIME, self.started_ms as f64 / 1e3);
        let facts = ProcessFacts::read();
        let cpu = facts.cpu.map(|time| time.as_secs_f64());
        text.family(&PROCESS_CPU, |samples| optional(samples, cpu));
        text.family(&PROCESS_RESIDENT_BYTES, |samples| optional(samples, facts.resident_bytes));
        text.family(&PROCESS_OPEN_FDS, |samples| optional(samples, facts.open_files));
        text.family(&PROCESS_MAX_FDS, |samples| optional(samples, facts.open_files_max));
    }
}

/// A series when there is something to tell.
fn optional(samples: &mut Samples<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        samples.add(&[], value);
    }
}

fn topics(text: &mut Exposition, topics: &[TopicSeen]) {
    let mut by_topic = |family: &'static Family, count: fn(&PartitionSeen) -> u64| {
        text.family(family, |samples| {
            for TopicSeen { topic, partitions } in topics {
                samples.add(&[&topic.name], partitions.iter().map(count).sum::<u64>());
            }
        });
    };
    by_topic(&TOPIC_PARTITIONS, |_| 1);
    by_topic(&TOPIC_FAILED_PARTITIONS, |one| u64::from(one.failed));
    by_topic(&TOPIC_RECORDS, |one| {
        one.facts().map_or(0, |facts| facts.visible.high_watermark.since(facts.visible.log_start))
    });
    by_topic(&TOPIC_BYTES, |one| one.facts().map_or(0, |facts| facts.size_bytes));
}

fn partitions(text: &mut Exposition, topics: &[TopicSeen]) {
    type Tell = fn(&PartitionFacts) -> u64;
    let tells: [(&'static Family, Tell); 5] = [
        (&PARTITION_LOG_START, |facts| facts.visible.log_start.0),
        (&PARTITION_LOG_END, |facts| facts.log_end.0),
        (&PARTITION_HIGH_WATERMARK, |facts| facts.visible.high_watermark.0),
        (&PARTITION_BYTES, |facts| facts.size_bytes),
        (&PARTITION_SEGMENTS, |facts| facts.segment_count as u64),
    ];
    for (family, tell) in tells {
        by_open_partition(text, family, topics, tell);
    }
    text.family(&PARTITION_FAILED, |samples| {
        for TopicSeen { topic, partitions } in topics {
            for one in partitions {
                samples.add(&[&topic.name, &one.number], one.failed);
            }
        }
    });
}

fn by_open_partition(
    text: &mut Exposition,
    family: &'static Family,
    topics: &[TopicSeen],
    tell: impl Fn(&PartitionFacts) -> u64,
) {
    text.family(family, |samples| {
        for TopicSeen { topic, partitions } in topics {
            for (one, facts) in partitions.iter().filter_map(|one| Some((one, one.facts()?))) {
                samples.add(&[&topic.name, &one.number], tell(facts));
            }
        }
    });
}

fn traffic(text: &mut Exposition, topics: &[TopicSeen], by_partition: bool) {
    type Direction = fn(&crate::partition::Partition) -> &Traffic;
    type Sum = fn(&Traffic) -> u64;
    let (appended, fetched): (Direction, Direction) =
        (|partition| partition.appended(), |partition| partition.fetched());
    let sums: [(&'static Family, Direction, Sum); 5] = [
        (&PRODUCE_BATCHES, appended, |traffic| traffic.batches.get()),
        (&PRODUCE_RECORDS, appended, |traffic| traffic.records.get()),
        (&PRODUCE_BYTES, appended, |traffic| traffic.bytes.get()),
        (&FETCH_RECORDS, fetched, |traffic| traffic.records.get()),
        (&FETCH_BYTES, fetched, |traffic| traffic.bytes.get()),
    ];
    for (family, direction, sum) in sums {
        text.family(family, |samples| {
            for TopicSeen { topic, partitions } in topics {
                let open = partitions.iter().filter_map(|one| Some((one, &one.open.as_ref()?.0)));
                let counted = open.map(|(one, partition)| (one.number, sum(direction(partition))));
                if by_partition {
                    counted.for_each(|(number, sum)| samples.add(&[&topic.name, &number], sum));
                } else {
                    samples.add(&[&topic.name], counted.map(|(_, sum)| sum).sum::<u64>());
                }
            }
        });
    }
}

fn damage(text: &mut Exposition, topics: &[TopicSeen], by_partition: bool) {
    text.family(&DAMAGED_PLACES, |samples| {
        for TopicSeen { topic, partitions } in topics {
            let open = partitions.iter().filter_map(|one| Some((one, &one.open.as_ref()?.0)));
            let counted = open.map(|(one, partition)| (one.number, partition.damaged_places()));
            if by_partition {
                counted.for_each(|(number, count)| samples.add(&[&topic.name, &number], count));
            } else {
                samples.add(&[&topic.name], counted.map(|(_, count)| count).sum::<u64>());
            }
        }
    });
}

fn groups(text: &mut Exposition, groups: &[GroupSeen], by_partition: bool) {
    text.single(&GROUPS, groups.len());
    text.family(&GROUP_MEMBERS, |samples| {
        groups.iter().for_each(|seen| samples.add(&[&seen.group], seen.members));
    });
    if by_partition {
        by_group_partition(text, &GROUP_COMMITTED_OFFSET, groups, |one| {
            one.committed.map(|offset| offset.0.into())
        });
        by_group_partition(text, &GROUP_LAG_RECORDS, groups, |one| Some(one.lag.records.into()));
        by_group_partition(text, &GROUP_LAG_SECONDS, groups, |one| one.age.map(Value::from));
    } else {
        by_group_topic(text, &GROUP_LAG_RECORDS, groups, |all| {
            Some(all.iter().map(|one| one.lag.records).sum::<u64>().into())
        });
        by_group_topic(text, &GROUP_LAG_SECONDS, groups, |all| {
            all.iter().filter_map(|one| one.age).max_by(f64::total_cmp).map(Value::from)
        });
    }
}

fn by_group_partition(
    text: &mut Exposition,
    family: &'static Family,
    groups: &[GroupSeen],
    tell: impl Fn(&GroupPartitionSeen) -> Option<Value>,
) {
    text.family(family, |samples| {
        for seen in groups {
            for one in &seen.partitions {
                if let Some(value) = tell(one) {
                    samples.add(&[&seen.group, &one.topic, &one.number], value);
                }
            }
        }
    });
}

fn by_group_topic(
    text: &mut Exposition,
    family: &'static Family,
    groups: &[GroupSeen],
    tell: impl Fn(&[GroupPartitionSeen]) -> Option<Value>,
) {
    text.family(family, |samples| {
        for seen in groups {
            for of_topic in seen.partitions.chunk_by(|one, next| one.topic == next.topic) {
                if let (Some(value), Some(first)) = (tell(of_topic), of_topic.first()) {
                    samples.add(&[&seen.group, &first.topic], value);
                }
            }
        }
    });
}

fn subscriptions(text: &mut Exposition, seen: &[SubscriptionSeen]) {
    text.single(&SUBSCRIPTIONS, seen.len());
    type Tell = fn(&SubscriptionSeen) -> Option<Value>;
    let tells: [(&'static Family, Tell); 13] = [
        (&SUBSCRIPTION_PAUSED, |one| Some(one.measured.paused.into())),
        (&SUBSCRIPTION_SESSIONS, |one| Some(one.measured.sessions.into())),
        (&SUBSCRIPTION_LAG_RECORDS, |one| Some(one.measured.counts.lag.into())),
        (&SUBSCRIPTION_READY, |one| Some(one.measured.counts.ready.into())),
        (&SUBSCRIPTION_IN_FLIGHT, |one| Some(one.measured.counts.in_flight.into())),
        (&SUBSCRIPTION_RETRYING, |one| Some(one.measured.counts.retrying.into())),
        (&SUBSCRIPTION_BLOCKED, |one| Some(one.measured.counts.blocked.into())),
        (&SUBSCRIPTION_SCHEDULED, |one| Some(one.measured.counts.scheduled.into())),
        (&SUBSCRIPTION_DEAD_PENDING, |one| Some(one.measured.counts.dead_pending.into())),
        (&SUBSCRIPTION_OLDEST_UNACKED, |one| one.age.map(Value::from)),
        (&SUBSCRIPTION_DELIVERIES, |one| Some(one.measured.tally.delivered.into())),
        (&SUBSCRIPTION_DELIVERED_BYTES, |one| Some(one.measured.tally.delivered_bytes.into())),
        (&SUBSCRIPTION_DEAD_LETTERS, |one| Some(one.measured.tally.dead.into())),
    ];
    for (family, tell) in tells {
        text.family(family, |samples| {
            for one in seen {
                if let Some(value) = tell(one) {
                    samples.add(&[&one.measured.name], value);
                }
            }
        });
    }
    text.family(&SUBSCRIPTION_SETTLEMENTS, |samples| {
        for SubscriptionSeen { measured, .. } in seen {
            let tally = &measured.tally;
            for (outcome, count) in [
                ("ack", tally.acked),
                ("nack", tally.nacked),
                ("reject", tally.rejected),
                ("release", tally.released),
                ("expired", tally.expired),
                ("crashed", tally.crashed),
            ] {
                samples.add(&[&measured.name, &outcome], count);
            }
        }
    });
}

fn webhooks(text: &mut Exposition, seen: &[SubscriptionSeen]) {
    let hooked =
        || seen.iter().filter_map(|one| Some((&one.measured.name, one.measured.webhook.as_ref()?)));
    text.family(&WEBHOOK_REQUESTS, |samples| {
        for (name, webhook) in hooked() {
            for (outcome, count) in [
                ("delivered", webhook.delivered),
                ("failed", webhook.failed),
                ("postponed", webhook.postponed),
                ("no_room", webhook.no_room),
            ] {
                samples.add(&[name, &outcome], count);
            }
        }
    });
    text.family(&WEBHOOK_BROKEN, |samples| {
        for (name, webhook) in hooked().filter(|(_, webhook)| webhook.state != WebhookState::Idle) {
            let is_broken =
                matches!(webhook.state, WebhookState::Broken { .. } | WebhookState::Probing);
            samples.add(&[name], is_broken);
        }
    });
}

/// What Kafka's exporter tells, by its names.
fn kafka_names(text: &mut Exposition, seen: &Seen) {
    by_group_partition(text, &KAFKA_GROUP_OFFSET, &seen.groups, |one| {
        one.committed.map(|offset| offset.0.into())
    });
    by_group_partition(text, &KAFKA_GROUP_LAG, &seen.groups, |one| Some(one.lag.records.into()));
    by_open_partition(text, &KAFKA_PARTITION_OFFSET, &seen.topics, |facts| {
        facts.visible.high_watermark.0
    });
    by_open_partition(text, &KAFKA_PARTITION_OLDEST, &seen.topics, |facts| {
        facts.visible.log_start.0
    });
}

impl PartitionSeen {
    /// Offsets and sizes, when it is open.
    fn facts(&self) -> Option<&PartitionFacts> {
        self.open.as_ref().map(|(_, facts)| facts)
    }
}
