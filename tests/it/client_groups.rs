//! The client's consumer as a member of a group, against a real broker.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use riverrun_client::{
    Client, Commit, Consumer, ConsumerBuilder, Error, GroupState, Offset, OffsetToCommit,
    Rebalance, Received, Reset, TopicPartition, TopicSpec,
};
use tokio::sync::oneshot;

use crate::support::{
    broker::TestBroker,
    client::{Seen, client_with_topic, in_time, number, restart, send_numbers},
};

/// A member of group `g` that is told of changes without delay.
fn member(mq: &Client) -> ConsumerBuilder {
    mq.consumer("t").group("g").max_wait(Duration::from_secs(1))
}

/// Receives and commits until `count` records came in all.
async fn receive_and_commit(consumer: &mut Consumer, seen: &mut Seen, count: usize) {
    while seen.len() < count {
        let batch = in_time(consumer.next_batch()).await.unwrap();
        batch.iter().for_each(|record| seen.take(&record));
        in_time(consumer.commit(&batch)).await.unwrap();
    }
}

#[tokio::test]
async fn a_group_goes_on_where_it_committed() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    send_numbers(&mq.producer("t").batch_bytes(500).build().await.unwrap(), 0..2000).await;
    let mut seen = Seen::default();
    for count in [700, 1400, 2000] {
        let mut consumer = member(&mq).max_bytes(2000, 1000).build().await.unwrap();
        receive_and_commit(&mut consumer, &mut seen, count).await;
        in_time(consumer.close()).await.unwrap();
    }
    seen.check_complete(2000);
    let lag: u64 = mq.admin().lag("g").await.unwrap().iter().map(|row| row.lag).sum();
    assert_eq!(lag, 0);
    let group = mq.admin().describe_group("g").await.unwrap();
    assert_eq!((group.state, group.members.len()), (GroupState::Empty, 0), "all have left");
}

/// A member that receives and commits in a task of its own until it is told to leave.
fn spawn_member(
    mq: &Client,
    seen: &Arc<Mutex<Seen>>,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<usize>) {
    let (leave, mut left) = oneshot::channel();
    let (mq, seen) = (mq.clone(), seen.clone());
    let task = tokio::spawn(async move {
        let mut consumer = member(&mq).max_bytes(4000, 2000).build().await.unwrap();
        let mut received = 0;
        loop {
            let batch = tokio::select! {
                batch = consumer.next_batch() => batch.unwrap(),
                _ = &mut left => break,
            };
            received += batch.len();
            batch.iter().for_each(|record| seen.lock().take(&record));
            // The work: a revocation comes in the middle of it and waits for the commit.
            tokio::time::sleep(Duration::from_millis(10)).await;
            in_time(consumer.commit(&batch)).await.unwrap();
        }
        in_time(consumer.close()).await.unwrap();
        received
    });
    (leave, task)
}

/// Waits until `seen` has at least `count` records.
async fn seen_at_least(seen: &Mutex<Seen>, count: usize) {
    let grown = async {
        while seen.lock().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(grown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_under_load_without_gap_or_repeat() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 6).await;
    let producer = mq.producer("t").batch_bytes(1000).build().await.unwrap();
    let sending = tokio::spawn(async move {
        for round in 0..60_u64 {
            send_numbers(&producer, round * 200..(round + 1) * 200).await;
        }
    });
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (leave_a, a) = spawn_member(&mq, &seen);
    seen_at_least(&seen, 1000).await;
    let (leave_b, b) = spawn_member(&mq, &seen);
    seen_at_least(&seen, 4000).await;
    let (leave_c, c) = spawn_member(&mq, &seen);
    seen_at_least(&seen, 7000).await;
    leave_a.send(()).unwrap();
    assert!(in_time(a).await.unwrap() > 0);
    seen_at_least(&seen, 12_000).await;
    in_time(sending).await.unwrap();
    for (leave, task) in [(leave_b, b), (leave_c, c)] {
        leave.send(()).unwrap();
        assert!(in_time(task).await.unwrap() > 0, "everybody had a share");
    }
    seen.lock().check_complete(12_000);
}

#[tokio::test]
async fn a_second_member_takes_its_share_and_is_told() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 4).await;
    let first = member(&mq).build().await.unwrap();
    let mut changes = first.rebalances();
    let Some(Rebalance::Assigned(all)) = in_time(changes.next()).await else { panic!("assigned") };
    assert_eq!(all.len(), 4);
    let second = member(&mq).build().await.unwrap();
    let mut of_second = second.rebalances();
    let Some(Rebalance::Revoking(half)) = in_time(changes.next()).await else { panic!("revoking") };
    let Some(Rebalance::Revoked(gone)) = in_time(changes.next()).await else { panic!("revoked") };
    assert_eq!(half, gone);
    let got = async {
        while second.assignment().len() < 2 {
            of_second.next().await;
        }
    };
    in_time(got).await;
    let mut both: BTreeSet<TopicPartition> = first.assignment().into_iter().collect();
    assert_eq!(both.len(), 2);
    both.extend(second.assignment());
    assert_eq!(both.len(), 4, "every partition has one owner");
    assert_eq!(mq.admin().describe_group("g").await.unwrap().members.len(), 2);
}

#[tokio::test]
async fn only_the_prefix_that_is_done_is_committed() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..100).await;
    let mut consumer = member(&mq).build().await.unwrap();
    let tracker = consumer.tracker();
    let mut records: Vec<Received> = Vec::new();
    while records.len() < 100 {
        records.extend(in_time(consumer.next_batch()).await.unwrap());
    }
    records.reverse();
    for record in records.iter().filter(|record| number(record) != 40) {
        tracker.done(record).unwrap();
    }
    assert_eq!(tracker.open(), 1);
    in_time(tracker.commit()).await.unwrap();
    assert_eq!(mq.admin().lag("g").await.unwrap()[0].committed, Some(Offset(40)));
    in_time(consumer.close()).await.unwrap();

    let mut again = member(&mq).build().await.unwrap();
    let batch = in_time(again.next_batch()).await.unwrap();
    assert_eq!(number(&batch.iter().next().unwrap()), 40, "it comes again");
    assert!(tracker.done(&records[0]).unwrap_err().is_fenced());
}

#[tokio::test]
async fn what_was_only_received_is_not_committed_as_processed() {
    for closes in [false, true] {
        let broker = TestBroker::start().await;
        let mq = client_with_topic(&broker, 1).await;
        let producer = mq.producer("t").build().await.unwrap();
        let every = Duration::from_millis(20);
        let mut consumer = member(&mq).commit(Commit::Processed { every }).build().await.unwrap();
        send_numbers(&producer, 0..10).await;
        assert_eq!(in_time(consumer.next_batch()).await.unwrap().next_offset(), Offset(10));
        send_numbers(&producer, 10..20).await;
        // Asking for the second batch says that the first is processed.
        assert_eq!(in_time(consumer.next_batch()).await.unwrap().next_offset(), Offset(20));
        if closes {
            in_time(consumer.close()).await.unwrap();
        } else {
            drop(consumer);
        }
        let left = async {
            while !mq.admin().describe_group("g").await.unwrap().members.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time(left).await;
        let lag = mq.admin().lag("g").await.unwrap();
        assert_eq!(lag[0].committed, Some(Offset(10)), "closed: {closes}");
    }
}

#[tokio::test]
async fn a_live_reset_moves_a_member() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..500).await;
    let mut consumer = member(&mq).build().await.unwrap();
    receive_and_commit(&mut consumer, &mut Seen::default(), 500).await;
    let dry = mq.admin().reset_offsets("g", Reset::Earliest).dry_run().await.unwrap();
    assert_eq!(dry.iter().map(|row| row.lag).sum::<u64>(), 500);
    assert!(consumer.poll(Duration::from_millis(100)).await.unwrap().is_none(), "nothing moved");
    let reset = mq.admin().reset_offsets("g", Reset::Earliest).await.unwrap();
    assert!(reset.iter().all(|row| row.to == Offset(0) && row.error.is_none()));
    let mut again = Seen::default();
    receive_and_commit(&mut consumer, &mut again, 500).await;
    again.check_complete(500);
}

#[tokio::test]
async fn a_member_lives_through_restarts_of_the_broker() {
    let mut broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 3).await;
    let producer = mq.producer("t").build().await.unwrap();
    let mut consumer = member(&mq).build().await.unwrap();
    let mut seen = Seen::default();
    for round in 0..3_u64 {
        send_numbers(&producer, round * 500..(round + 1) * 500).await;
        let count = usize::try_from(round + 1).unwrap() * 500;
        receive_and_commit(&mut consumer, &mut seen, count).await;
        broker = restart(broker).await;
    }
    send_numbers(&producer, 1500..1600).await;
    receive_and_commit(&mut consumer, &mut seen, 1600).await;
    seen.check_complete(1600);
    drop(broker);
}

#[tokio::test]
async fn partitions_of_a_silent_member_go_to_others_and_it_is_fenced() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..10).await;
    let session = Duration::from_secs(1);
    // A runtime of its own, which stops: as a process that hangs.
    let (held, holding) = oneshot::channel();
    let address = crate::support::client::address(&broker).to_string();
    let stopped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut consumer, batch) = runtime.block_on(async {
            let mq = Client::connect(&address).await.unwrap();
            let mut consumer = member(&mq).session_timeout(session).build().await.unwrap();
            let batch = in_time(consumer.next_batch()).await.unwrap();
            (consumer, batch)
        });
        held.send(()).unwrap();
        move || {
            runtime.block_on(async {
                // It wakes up, knows that it was away for too long, and may not commit.
                let refused = in_time(consumer.commit(&batch)).await.unwrap_err();
                assert!(refused.is_fenced(), "{refused:?}");
                assert!(consumer.poll(Duration::from_millis(50)).await.is_ok());
            });
        }
    });
    in_time(holding).await.unwrap();
    let wake = stopped.join().unwrap();
    let mut other = member(&mq).session_timeout(session).build().await.unwrap();
    let mut seen = Seen::default();
    receive_and_commit(&mut other, &mut seen, 10).await;
    seen.check_complete(10);
    std::thread::spawn(wake).join().unwrap();
    assert_eq!(mq.admin().lag("g").await.unwrap()[0].committed, Some(Offset(10)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_before_a_reset_is_not_committed_over_it() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 1).await;
    send_numbers(&mq.producer("t").build().await.unwrap(), 0..100).await;
    let mut consumer = member(&mq).build().await.unwrap();
    for _ in 0..20 {
        let batch = in_time(consumer.next_batch()).await.unwrap();
        mq.admin().reset_offsets("g", Reset::Earliest).await.unwrap();
        let late = in_time(consumer.commit(&batch)).await.unwrap_err();
        assert!(late.is_fenced(), "{late:?}");
        let offset = OffsetToCommit::new(batch.partition().clone(), batch.next_offset());
        let late = in_time(consumer.commit_offsets(&[offset.received_in(&batch)])).await;
        assert!(late.as_ref().is_err_and(Error::is_fenced), "{late:?}");
        let lag = mq.admin().lag("g").await.unwrap();
        assert_eq!(lag[0].committed, Some(Offset(0)), "the operator's word stands");
    }
}

#[tokio::test]
async fn a_member_reads_a_topic_that_was_created_anew_from_its_first_record() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    let mut consumer = member(&mq).build().await.unwrap();
    let mut rebalances = consumer.rebalances();
    for round in 0..5_u64 {
        let count = 20 + round;
        send_numbers(&mq.producer("t").build().await.unwrap(), 0..count).await;
        // A topic of its own: offsets begin at 0 again, and an error would end the test.
        let mut seen = Seen::default();
        receive_and_commit(&mut consumer, &mut seen, usize::try_from(count).unwrap()).await;
        seen.check_complete(count);
        mq.admin().delete_topic("t").await.unwrap();
        mq.admin().create_topic(TopicSpec::new("t").partitions(2)).await.unwrap();
        let is_told = |change| matches!(change, Rebalance::Replaced(_) | Rebalance::Revoking(_));
        while !is_told(in_time(rebalances.next()).await.unwrap()) {}
    }
}
