//! Commands of the metadata log. An input is parts; each is one command, its kind says nothing.

use prost::Message;
use riverrun_broker::topic::catalog::Catalog;
use riverrun_proto::{
    grpc::state::v1::{MetadataCommand, MetadataSnapshot},
    limits::PARTITION_COUNT_MAX,
};

use crate::{Taken, pieces::pieces};

pub(crate) fn run(input: &[u8]) -> Taken {
    let mut catalog = Catalog::default();
    let mut taken = Taken::Refused;
    for (_, bytes) in pieces(input) {
        let Ok(command) = MetadataCommand::decode(bytes) else { continue };
        let before = catalog.to_snapshot();
        match catalog.apply(&command) {
            Ok(()) => taken = Taken::Accepted,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(catalog.to_snapshot(), before, "a refused command changes nothing");
            }
        }
        check(&catalog);
    }
    taken
}

fn check(catalog: &Catalog) {
    let snapshot = catalog.to_snapshot();
    let bytes = snapshot.encode_to_vec();
    let read = MetadataSnapshot::decode(&*bytes).expect("written here");
    let again = Catalog::from_snapshot(&read).expect("a snapshot of what was taken in");
    assert_eq!(again.to_snapshot(), snapshot);
    for topic in catalog.topics() {
        assert!(
            topic.partition_count <= PARTITION_COUNT_MAX,
            "{} partitions",
            topic.partition_count
        );
        assert_eq!(catalog.topic_by_id(topic.id), Some(topic));
        assert_eq!(catalog.topic(&topic.name), Some(topic));
        assert!(catalog.doomed().all(|id| id != topic.id), "a live topic is never removed");
    }
    assert_eq!(catalog.topics().count(), catalog.topic_count());
}
