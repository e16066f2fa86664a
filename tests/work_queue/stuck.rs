//! One key that is stuck holds up nobody else.

use std::{collections::HashMap, time::Duration};

use riverrun_client::Mode;

use crate::support::{
    broker::TestBroker,
    client::{client_with_topic, in_time, number, send_numbers},
};

/// Records in all; [`send_numbers`] gives them 37 keys.
const COUNT: u64 = 2_000;

#[tokio::test]
async fn a_stuck_key_blocks_only_itself() {
    let broker = TestBroker::start().await;
    let mq = client_with_topic(&broker, 2).await;
    let producer = mq.producer("t").build().await.unwrap();
    send_numbers(&producer, 0..COUNT).await;
    let builder = mq.subscribe("t").name("s").mode(Mode::KeyFifo).credit(64, 1 << 20);
    let mut jobs = in_time(builder.ack_wait(Duration::from_secs(600)).open()).await.unwrap();

    let of_stuck_key = |number: u64| number % 37 == 5;
    let others = (0..COUNT).filter(|number| !of_stuck_key(*number)).count();
    let mut stuck = None;
    let mut done: HashMap<u64, Vec<u64>> = HashMap::new();
    // The first of the stuck key stays in hand until everybody else is done.
    while done.values().map(Vec::len).sum::<usize>() < others {
        let job = in_time(jobs.next()).await.unwrap().unwrap();
        let number = number(job.record());
        if of_stuck_key(number) {
            assert!(stuck.is_none(), "two of the stuck key in hand: {number}");
            assert_eq!(number, 5);
            stuck = Some(job);
        } else {
            done.entry(number % 37).or_default().push(number);
            job.ack();
        }
    }
    stuck.expect("it was handed out").ack();
    done.insert(5, vec![5]);
    while done[&5].len() < (0..COUNT).filter(|number| of_stuck_key(*number)).count() {
        let job = in_time(jobs.next()).await.unwrap().unwrap();
        done.get_mut(&5).unwrap().push(number(job.record()));
        job.ack();
    }
    for (key, numbers) in done {
        assert!(numbers.is_sorted_by(|a, b| a < b), "key {key} is out of order: {numbers:?}");
    }
    in_time(jobs.close()).await.unwrap();
    broker.stop().await;
}
