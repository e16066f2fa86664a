use riverrun_proto::grpc::state::v1::{
    LogTakenIntoUse, ProducerIdsReserved, StreamDeleted, TopicDeleted, TopicPrepared, TopicPurged,
};
use uuid::Uuid;

use super::*;
use crate::stream::Origin;

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn command(command: Command) -> MetadataCommand {
    MetadataCommand { time_ms: 0, command: Some(command) }
}

fn prepared(number: u128) -> MetadataCommand {
    command(Command::TopicPrepared(TopicPrepared { topic_id: id_bytes(id(number)) }))
}

fn created(number: u128, name: &str, partitions: u32) -> MetadataCommand {
    command(Command::TopicCreated(TopicCreated {
        topic_id: id_bytes(id(number)),
        topic: name.into(),
        partitions,
        overrides: None,
        stream: None,
    }))
}

fn altered(number: u128, partitions: u32, segment_ms: u64) -> MetadataCommand {
    let overrides = v1::TopicConfig { segment_ms: Some(segment_ms), ..Default::default() };
    command(Command::TopicAltered(TopicAltered {
        topic_id: id_bytes(id(number)),
        partitions,
        overrides: Some(overrides),
    }))
}

fn deleted(number: u128) -> MetadataCommand {
    command(Command::TopicDeleted(TopicDeleted { topic_id: id_bytes(id(number)) }))
}

fn purged(number: u128) -> MetadataCommand {
    command(Command::TopicPurged(TopicPurged { topic_id: id_bytes(id(number)) }))
}

fn raised(producer_id: i64, producer_epoch: i32) -> MetadataCommand {
    command(Command::ProducerEpochRaised(ProducerEpochRaised { producer_id, producer_epoch }))
}

fn reserved(next_producer_id: i64) -> MetadataCommand {
    command(Command::ProducerIdsReserved(ProducerIdsReserved { next_producer_id }))
}

fn fold(commands: &[MetadataCommand]) -> Catalog {
    let mut catalog = Catalog::default();
    for command in commands {
        catalog.apply(command).expect("fits");
    }
    catalog
}

#[test]
fn a_topic_lives_from_prepared_to_purged() {
    let mut catalog = fold(&[prepared(1)]);
    assert_eq!(catalog.doomed().collect::<Vec<_>>(), [id(1)], "nothing is lost if it ends here");
    catalog.apply(&created(1, "orders", 3)).unwrap();
    assert_eq!(catalog.doomed().count(), 0);
    assert_eq!(catalog.topic("orders").unwrap().partition_count, 3);
    catalog.apply(&altered(1, 5, 9_000)).unwrap();
    let topic = catalog.topic_by_id(id(1)).unwrap();
    assert_eq!((topic.partition_count, topic.given.segment_ms), (5, Some(9_000)));
    assert_eq!(topic.config.segment_age.as_millis(), 9_000);
    catalog.apply(&deleted(1)).unwrap();
    assert!(catalog.topic("orders").is_none());
    assert_eq!(catalog.doomed().collect::<Vec<_>>(), [id(1)]);
    catalog.apply(&created(2, "orders", 1)).unwrap();
    catalog.apply(&purged(1)).unwrap();
    assert_eq!((catalog.doomed().count(), catalog.topic("orders").unwrap().id), (0, id(2)));
}

#[test]
fn commands_that_contradict_the_state_change_nothing() {
    let mut catalog = fold(&[created(1, "a", 2), reserved(1_000), raised(5, 3)]);
    let before = catalog.to_snapshot();
    for bad in [
        created(1, "b", 1),
        created(2, "a", 1),
        altered(9, 1, 5_000),
        altered(1, 1, 5_000),
        altered(1, 2, 5),
        deleted(9),
        reserved(999),
        raised(5, 3),
        raised(6, 0),
        raised(6, 40_000),
        MetadataCommand::default(),
        command(Command::TopicDeleted(TopicDeleted { topic_id: Bytes::from_static(b"short") })),
    ] {
        assert!(catalog.apply(&bad).is_err(), "{bad:?}");
        assert_eq!(catalog.to_snapshot(), before, "{bad:?}");
    }
}

#[test]
fn a_snapshot_is_the_state() {
    let commands = [
        created(1, "a", 2),
        created(2, "b", 1),
        altered(1, 4, 5_000),
        deleted(2),
        prepared(3),
        reserved(2_000),
        raised(7, 1),
        raised(8, 1),
        raised(7, 2),
        command(Command::LogTakenIntoUse(LogTakenIntoUse { log_id: id_bytes(id(9)) })),
    ];
    let catalog = fold(&commands);
    let snapshot = catalog.to_snapshot();
    let restored = fold(&[command(Command::Snapshot(snapshot.clone()))]);
    assert_eq!(restored.to_snapshot(), snapshot);
    assert_eq!(restored.producer_epoch(7), Some(2));
    assert_eq!(restored.producer_epoch(9), None);
    assert!(restored.is_log_in_use(id(9)) && !restored.is_log_in_use(id(1)));
    assert_eq!(restored.topic("a"), catalog.topic("a"));
    assert_eq!(restored.doomed().collect::<Vec<_>>(), [id(2), id(3)]);
}

#[test]
fn a_stream_stays_what_it_was_created_as_through_changes_and_snapshots() {
    let origin = Origin { topic_id: id(8), topic: "source".into(), offset: 4, sub_offset: 2 };
    let facts = StreamFacts {
        content_type: "text/plain".into(),
        ttl_s: Some(0),
        expires_at_ms: Some(-1),
        origin: Some(origin),
        is_deleted: false,
    };
    let mut fork = created(1, "fork", 1);
    if let Some(Command::TopicCreated(created)) = &mut fork.command {
        created.stream = Some(facts.to_message());
    }
    let gone = |number| StreamDeleted { topic_id: id_bytes(id(number)) };
    let gone = |number| command(Command::StreamDeleted(gone(number)));
    let mut catalog = fold(&[fork, created(2, "topic", 1), altered(1, 1, 5_000)]);
    assert_eq!(catalog.topic("fork").unwrap().stream, Some(facts.clone()));
    assert_eq!(catalog.apply(&gone(2)), Err(CatalogError::NoStream(id(2))));
    assert_eq!(catalog.apply(&gone(3)), Err(CatalogError::UnknownTopic(id(3))));
    catalog.apply(&gone(1)).unwrap();
    let restored = Catalog::from_snapshot(&catalog.to_snapshot()).unwrap();
    let deleted = StreamFacts { is_deleted: true, ..facts };
    assert_eq!(restored.topic("fork").unwrap().stream, Some(deleted));
    assert_eq!(restored.topic("topic").unwrap().stream, None);
}

#[test]
fn the_forks_of_a_stream_are_counted_through_deletions_and_snapshots() {
    let fork_of = |number, name: &str, source| {
        let origin = Origin { topic_id: id(source), topic: "s".into(), offset: 0, sub_offset: 0 };
        let facts = StreamFacts { origin: Some(origin), ..StreamFacts::bytes() };
        let mut fork = created(number, name, 1);
        if let Some(Command::TopicCreated(created)) = &mut fork.command {
            created.stream = Some(facts.to_message());
        }
        fork
    };
    let mut catalog = fold(&[fork_of(2, "a", 1), fork_of(3, "b", 1), fork_of(4, "c", 2)]);
    let forked = |catalog: &Catalog| [1, 2, 3].map(|number| catalog.has_forks(id(number)));
    assert_eq!(forked(&catalog), [true, true, false]);
    catalog.apply(&deleted(2)).unwrap();
    catalog.apply(&deleted(4)).unwrap();
    assert_eq!(forked(&catalog), [true, false, false], "one of two still stands");
    let mut restored = Catalog::from_snapshot(&catalog.to_snapshot()).unwrap();
    assert_eq!(forked(&restored), [true, false, false]);
    restored.apply(&deleted(3)).unwrap();
    assert_eq!(forked(&restored), [false; 3]);
}

#[test]
fn more_partitions_than_a_topic_may_have_are_refused() {
    let most = riverrun_proto::limits::PARTITION_COUNT_MAX;
    let mut catalog = Catalog::default();
    catalog.apply(&created(1, "a", most)).unwrap();
    let refused = CatalogError::Partitions { found: u32::MAX };
    assert_eq!(catalog.apply(&created(2, "b", u32::MAX)), Err(refused.clone()));
    assert_eq!(catalog.apply(&altered(1, u32::MAX, 1_000)), Err(refused));
    assert_eq!(catalog.partition_count(), u64::from(most));
}

#[test]
fn a_live_topic_is_never_said_to_be_removed() {
    let mut catalog = Catalog::default();
    catalog.apply(&created(1, "a", 2)).unwrap();
    let exists = CatalogError::TopicExists { name: "a".into(), id: id(1) };
    assert_eq!(catalog.apply(&prepared(1)), Err(exists.clone()));
    assert_eq!(catalog.doomed().count(), 0);
    let mut snapshot = catalog.to_snapshot();
    snapshot.doomed_topic_ids.push(id_bytes(id(1)));
    assert_eq!(Catalog::from_snapshot(&snapshot).map(|_| ()), Err(exists));
}
