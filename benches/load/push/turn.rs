//! From an acknowledgement that frees credit to the arrival of the next record.
//!
//! Sessions with credit for one record each acknowledge at a steady rate. The time runs from when the acknowledgement was due, if the session
//! was late with the one before, and from when it was sent otherwise.

use std::time::Duration;

use hdrhistogram::Histogram;
use riverrun_proto::grpc::v1::{
    Ack, Credit, Deliver, SettleFrame, SettleItem, push_client::PushClient, session_request::Frame,
    session_response, settle_item::Outcome,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tonic::transport::Endpoint;

use super::session::Session;
use crate::{
    broker::Setup,
    clock,
    error::{Error, Result},
    report::{Measurement, Target},
};

/// Topic of the workload.
const TOPIC: &str = "turn";
/// Sessions that take turns.
const SESSIONS: u32 = 100;
/// Acknowledgements per second over all sessions.
const RATE: u32 = 10_000;
/// Acknowledgements of each session.
const TURNS: usize = 1_000;

pub(super) async fn run(setup: &Setup) -> Result<Vec<Measurement>> {
    let broker = setup.start("turn").await?;
    let client = broker.client().await?;
    super::fill(&client, TOPIC, u64::from(SESSIONS) * (TURNS as u64 + 1), 100).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address()))?.tcp_nodelay(true);
    let push = PushClient::new(endpoint.connect().await?);
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        let open = Session::open(push.clone(), (TOPIC, TOPIC, format!("s{number}")), 1);
        sessions.spawn(take_turns(open.await?));
    }
    let mut all = Histogram::<u64>::new(3).map_err(|error| Error::Wrong(error.to_string()))?;
    while let Some(ended) = sessions.join_next().await {
        let times = ended.map_err(std::io::Error::other)??;
        all.add(times).map_err(|error| Error::Wrong(error.to_string()))?;
    }
    broker.stop()?;
    let ms = |quantile| all.value_at_percentile(quantile) as f64 / 1e6;
    Ok(vec![
        Measurement::new("acknowledgement to next record, p50", ms(50.0), "ms"),
        Measurement::new("acknowledgement to next record, p99", ms(99.0), "ms")
            .target(Target::AtMost(1.0)),
    ])
}

async fn take_turns(mut session: Session) -> Result<Histogram<u64>> {
    let mut times = Histogram::new(3).map_err(|error| Error::Wrong(error.to_string()))?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * SESSIONS / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut held = delivery(&mut session).await?;
    for turn in 0..TURNS {
        let free = clock::instant();
        let due = ticks.tick().await;
        // Who was free waited for a timer, which is late by up to a millisecond; who was not is late by itself.
        let start = if free > due { due } else { clock::instant() };
        session.send(Frame::Settle(ack(&held, session.epoch)?)).await?;
        let messages_total = turn as u64 + 2;
        session.send(Frame::Credit(Credit { messages_total, bytes_total: u64::MAX >> 8 })).await?;
        held = delivery(&mut session).await?;
        let nanos = u64::try_from(clock::since(start).as_nanos()).unwrap_or(u64::MAX);
        times.record(nanos).map_err(|error| Error::Wrong(error.to_string()))?;
    }
    Ok(times)
}

/// The next delivery, whatever comes before it.
async fn delivery(session: &mut Session) -> Result<Deliver> {
    loop {
        let frame = session.next().await?;
        if let session_response::Frame::Deliver(deliver) = frame {
            return Ok(deliver);
        }
        if !matches!(frame, session_response::Frame::Heartbeat(_)) {
            return Err(Error::Wrong(format!("unexpected: {frame:?}")));
        }
    }
}

/// Acknowledges all of a delivery.
fn ack(delivery: &Deliver, session_epoch: u64) -> Result<SettleFrame> {
    let range = delivery.ranges.first().ok_or_else(|| Error::Wrong("an empty delivery".into()))?;
    let item = SettleItem {
        topic: delivery.topic.clone(),
        partition: delivery.partition,
        start_offset: range.start_offset,
        end_offset: range.end_offset,
        session_epoch,
        delivery_seq: delivery.delivery_seq,
        outcome: Some(Outcome::Ack(Ack {})),
    };
    Ok(SettleFrame { items: vec![item], ..SettleFrame::default() })
}
