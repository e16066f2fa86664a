//! Push sessions spoken with generated stubs, frame by frame.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use riverrun_proto::{
    Record, RecordBatch,
    grpc::v1::{
        self, push_client::PushClient, session_request::Frame as Ask,
        session_response::Frame as Told, settle_item::Outcome,
        subscriptions_client::SubscriptionsClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{
    broker::{Stubs, TestBroker},
    client::in_time,
};

/// Stubs of both services of subscriptions, and those of topics.
#[derive(Clone, Debug)]
pub(crate) struct PushStubs {
    pub(crate) push: PushClient<Channel>,
    pub(crate) subscriptions: SubscriptionsClient<Channel>,
    pub(crate) topics: Stubs,
}

/// One record that came, and its lease.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
    pub(crate) replayed: bool,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    to: Option<mpsc::Sender<v1::SessionRequest>>,
    from: Streaming<v1::SessionResponse>,
    pub(crate) opened: v1::Opened,
    /// Credit granted so far, in records and bytes.
    credit: (u64, u64),
    settle_id: u64,
    /// What came and was not asked for yet.
    records: VecDeque<Got>,
    settled: VecDeque<v1::Settled>,
    /// Names of the frames about records, as they came.
    pub(crate) order: Vec<&'static str>,
    pub(crate) revoked: VecDeque<v1::Revoked>,
    pub(crate) lost: VecDeque<v1::Lost>,
    pub(crate) heartbeats: VecDeque<v1::BrokerHeartbeat>,
    pub(crate) goaway: Option<v1::Goaway>,
    /// How the stream ended.
    pub(crate) ended: Option<Result<(), Status>>,
}

/// What opens session `id` of subscription `s`, with structured records.
pub(crate) fn open(id: &str) -> v1::OpenSession {
    v1::OpenSession {
        subscription: "s".into(),
        session_id: id.into(),
        format: v1::RecordFormat::Structured as i32,
        client_id: "test".into(),
        ..v1::OpenSession::default()
    }
}

/// A subscription on topic `t`, from the beginning.
pub(crate) fn spec(settings: v1::SubscriptionSettings) -> v1::SubscriptionSpec {
    v1::SubscriptionSpec { topics: vec!["t".into()], start: None, settings: Some(settings) }
}

impl PushStubs {
    /// On a connection of their own.
    pub(crate) async fn new(broker: &TestBroker) -> PushStubs {
        PushStubs::on(broker.channel().await)
    }

    /// On this connection.
    pub(crate) fn on(channel: Channel) -> PushStubs {
        PushStubs {
            push: PushClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            subscriptions: SubscriptionsClient::new(channel.clone()),
            topics: Stubs::new(channel),
        }
    }

    /// With a topic `t` of one partition.
    pub(crate) async fn with_topic(broker: &TestBroker) -> PushStubs {
        let mut stubs = PushStubs::new(broker).await;
        stubs.topics.create("t", 1, v1::TopicConfig::default()).await;
        stubs
    }

    /// With a topic `t` of one partition and subscription `s` on it.
    pub(crate) async fn with_subscription(
        broker: &TestBroker,
        settings: v1::SubscriptionSettings,
    ) -> PushStubs {
        let mut stubs = PushStubs::with_topic(broker).await;
        assert!(stubs.create("s", spec(settings)).await.expect("created"));
        stubs
    }

    /// Creates a subscription; true when it is new.
    pub(crate) async fn create(
        &mut self,
        name: &str,
        spec: v1::SubscriptionSpec,
    ) -> Result<bool, Status> {
        let spec = Some(spec);
        let request = v1::CreateSubscriptionRequest { subscription: name.into(), spec };
        let created = in_time(self.subscriptions.create_subscription(request)).await?;
        Ok(created.into_inner().created)
    }

    /// Appends records, in one batch, to partition 0 of `t`; gives the first offset.
    pub(crate) async fn send(&mut self, records: &[Record]) -> u64 {
        self.send_to("t", 0, records).await
    }

    /// Appends records, in one batch; gives the first offset.
    pub(crate) async fn send_to(&mut self, topic: &str, partition: u32, records: &[Record]) -> u64 {
        let wire = |record: &Record| v1::Record {
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record
                .headers
                .iter()
                .map(|header| v1::Header {
                    key: String::from_utf8(header.key.to_vec()).expect("text"),
                    value: header.value.clone(),
                })
                .collect(),
            ..v1::Record::default()
        };
        let records = v1::Records { records: records.iter().map(wire).collect() };
        let request = v1::AppendRequest {
            topic: topic.into(),
            partition,
            payload: Some(v1::append_request::Payload::Records(records)),
            ..v1::AppendRequest::default()
        };
        let appended = in_time(self.topics.produce.append(request)).await.expect("appended");
        appended.into_inner().base_offset
    }

    /// Appends `count` records without a key, whose values are their numbers.
    pub(crate) async fn send_numbers(&mut self, count: u64) -> u64 {
        let records: Vec<Record> = (0..count).map(|n| value(&n.to_string())).collect();
        self.send(&records).await
    }

    /// Opens a session and grants all the credit there is.
    pub(crate) async fn session(&mut self, id: &str) -> Session {
        let mut session = self.session_with(open(id)).await.expect("opens");
        session.grant(1 << 40, 1 << 50).await;
        session
    }

    /// Opens a session; it has no credit.
    pub(crate) async fn session_with(&mut self, open: v1::OpenSession) -> Result<Session, Status> {
        Session::open(self, Some(Ask::Open(open))).await
    }

    /// Changes settings of `s`.
    pub(crate) async fn alter(&mut self, settings: v1::SubscriptionSettings) {
        let request = v1::AlterSubscriptionRequest {
            subscription: "s".into(),
            settings: Some(settings),
            add_topics: Vec::new(),
        };
        in_time(self.subscriptions.alter_subscription(request)).await.expect("altered");
    }

    /// As it stands.
    pub(crate) async fn describe(&mut self) -> v1::DescribeSubscriptionResponse {
        let request = v1::DescribeSubscriptionRequest { subscription: "s".into() };
        in_time(self.subscriptions.describe_subscription(request))
            .await
            .expect("is there")
            .into_inner()
    }

    /// Partition 0 of the first topic.
    pub(crate) async fn lane(&mut self) -> v1::SubscriptionPartition {
        self.describe().await.partitions.remove(0)
    }

    /// Why nothing is delivered of partition 0.
    pub(crate) async fn explain(&mut self) -> v1::Explanation {
        let request = v1::ExplainSubscriptionRequest { subscription: "s".into() };
        let told = in_time(self.subscriptions.explain_subscription(request)).await.expect("told");
        told.into_inner().partitions.remove(0)
    }

    /// Waits until the lane looks as it should.
    pub(crate) async fn lane_until(
        &mut self,
        is_so: impl Fn(&v1::SubscriptionPartition) -> bool,
    ) -> v1::SubscriptionPartition {
        in_time(async {
            loop {
                let lane = self.lane().await;
                if is_so(&lane) {
                    return lane;
                }
            }
        })
        .await
    }

    /// Asks for records once.
    pub(crate) async fn receive(
        &mut self,
        request: v1::ReceiveRequest,
    ) -> Result<(v1::ReceiveResponse, Vec<Got>), Status> {
        let response = in_time(self.push.receive(request)).await?.into_inner();
        let mut got = Vec::new();
        for deliver in &response.deliveries {
            got.extend(gotten(deliver));
        }
        Ok((response, got))
    }

    /// Settles what came by `Receive`.
    pub(crate) async fn settle(
        &mut self,
        session_id: &str,
        items: Vec<v1::SettleItem>,
    ) -> Result<Vec<v1::SettleStatus>, Status> {
        let request = v1::SettleRequest {
            subscription: "s".into(),
            session_id: session_id.into(),
            items,
            sync: true,
        };
        let response = in_time(self.push.settle(request)).await?.into_inner();
        Ok(response.results.iter().map(v1::SettleResult::status).collect())
    }
}

/// A record with this value.
pub(crate) fn value(value: &str) -> Record {
    Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Record::default() }
}

/// A record with this key and value.
pub(crate) fn keyed(key: &str, text: &str) -> Record {
    Record { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..value(text) }
}

/// One item for one record.
pub(crate) fn item(got: &Got, outcome: Outcome) -> v1::SettleItem {
    v1::SettleItem {
        topic: got.topic.clone(),
        partition: got.partition,
        start_offset: got.offset,
        end_offset: got.offset + 1,
        session_epoch: got.epoch,
        delivery_seq: got.seq,
        outcome: Some(outcome),
    }
}

/// Done.
pub(crate) fn ack(got: &Got) -> v1::SettleItem {
    item(got, Outcome::Ack(v1::Ack {}))
}

/// Failed, to be tried again after this time.
pub(crate) fn nack(got: &Got, delay_ms: u64) -> v1::SettleItem {
    item(got, Outcome::Nack(v1::Nack { delay_ms: Some(delay_ms), reason: "no".into() }))
}

impl Session {
    /// Opens a stream whose first frame is `first`, and waits for the answer.
    pub(crate) async fn open(stubs: &mut PushStubs, first: Option<Ask>) -> Result<Session, Status> {
        let (to, requests) = mpsc::channel(1_000);
        to.send(v1::SessionRequest { frame: first }).await.expect("has room");
        let from = in_time(stubs.push.session(ReceiverStream::new(requests))).await?;
        let mut from = from.into_inner();
        let told = in_time(from.message()).await?.and_then(|told| told.frame);
        let Some(Told::Opened(opened)) = told else { panic!("not opened: {told:?}") };
        Ok(Session {
            to: Some(to),
            from,
            opened,
            credit: (0, 0),
            settle_id: 0,
            records: VecDeque::new(),
            settled: VecDeque::new(),
            order: Vec::new(),
            revoked: VecDeque::new(),
            lost: VecDeque::new(),
            heartbeats: VecDeque::new(),
            goaway: None,
            ended: None,
        })
    }

    /// Sends a frame, as far as the stream still stands.
    pub(crate) async fn ask(&self, frame: Ask) {
        let request = v1::SessionRequest { frame: Some(frame) };
        let to = self.to.as_ref().expect("not half-closed");
        // A broker that ended the stream takes no more.
        let _ended = in_time(to.send(request)).await;
    }

    /// Sends a frame with nothing in it.
    pub(crate) async fn ask_nothing(&self) {
        let to = self.to.as_ref().expect("not half-closed");
        in_time(to.send(v1::SessionRequest { frame: None })).await.expect("has room");
    }

    /// Shows that the client is alive.
    pub(crate) async fn beat(&self) {
        self.ask(Ask::Heartbeat(v1::ClientHeartbeat {})).await;
    }

    /// Grants more credit.
    pub(crate) async fn grant(&mut self, messages: u64, bytes: u64) {
        self.credit = (self.credit.0 + messages, self.credit.1 + bytes);
        let (messages_total, bytes_total) = self.credit;
        self.ask(Ask::Credit(v1::Credit { messages_total, bytes_total })).await;
    }

    /// Ends the client's half.
    pub(crate) fn half_close(&mut self) {
        self.to = None;
    }

    /// Takes the next frame in; false once the stream ended.
    pub(crate) async fn pump(&mut self) -> bool {
        let told = match in_time(self.from.message()).await {
            Ok(Some(told)) => told.frame.expect("a frame"),
            Ok(None) => {
                self.ended = Some(Ok(()));
                return false;
            }
            Err(status) => {
                self.ended = Some(Err(status));
                return false;
            }
        };
        match &told {
            Told::Deliver(_) => self.order.push("deliver"),
            Told::Revoked(_) => self.order.push("revoked"),
            Told::Lost(_) => self.order.push("lost"),
            Told::Opened(_) | Told::Settled(_) | Told::Heartbeat(_) | Told::Goaway(_) => {}
        }
        match told {
            Told::Opened(again) => panic!("opened twice: {again:?}"),
            Told::Deliver(deliver) => self.records.extend(gotten(&deliver)),
            Told::Settled(settled) => self.settled.push_back(settled),
            Told::Revoked(revoked) => self.revoked.push_back(revoked),
            Told::Lost(lost) => self.lost.push_back(lost),
            Told::Heartbeat(heartbeat) => self.heartbeats.push_back(heartbeat),
            Told::Goaway(goaway) => self.goaway = Some(goaway),
        }
        true
    }

    /// The next `count` records.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Got> {
        while self.records.len() < count {
            assert!(self.pump().await, "ended early: {:?} {:?}", self.ended, self.goaway);
        }
        self.records.drain(..count).collect()
    }

    /// The next record.
    pub(crate) async fn one(&mut self) -> Got {
        self.take(1).await.remove(0)
    }

    /// What came already.
    pub(crate) fn came(&mut self) -> Vec<Got> {
        self.records.drain(..).collect()
    }

    /// Settles and waits until it is durable; gives the status of each item.
    pub(crate) async fn settle(&mut self, items: Vec<v1::SettleItem>) -> Vec<v1::SettleStatus> {
        self.settle_id += 1;
        let (settle_id, count) = (self.settle_id, items.len());
        self.ask(Ask::Settle(v1::SettleFrame { settle_id, items, sync: true })).await;
        while self.settled.is_empty() {
            assert!(self.pump().await, "ended early: {:?} {:?}", self.ended, self.goaway);
        }
        let settled = self.settled.pop_front().expect("just looked");
        assert_eq!((settled.settle_id, settled.results.len()), (settle_id, count));
        let mut by_item = BTreeMap::new();
        for result in &settled.results {
            by_item.insert(result.item, result.status());
        }
        by_item.into_values().collect()
    }

    /// Settles one item.
    pub(crate) async fn settle_one(&mut self, item: v1::SettleItem) -> v1::SettleStatus {
        self.settle(vec![item]).await.remove(0)
    }

    /// Acknowledges all of these.
    pub(crate) async fn ack(&mut self, got: &[Got]) {
        let statuses = self.settle(got.iter().map(ack).collect()).await;
        assert!(statuses.iter().all(|one| *one == v1::SettleStatus::Ok), "{statuses:?}");
    }

    /// Once this answers, whatever the broker did before has come.
    pub(crate) async fn rest(&mut self) {
        let statuses = self.settle(vec![v1::SettleItem::default()]).await;
        assert_eq!(statuses, [v1::SettleStatus::Invalid]);
    }

    /// Acknowledges what has come; gives how many records that were.
    pub(crate) async fn work_off(&mut self) -> usize {
        self.rest().await;
        let got = self.came();
        if !got.is_empty() {
            self.ack(&got).await;
        }
        got.len()
    }

    /// Waits for a frame that takes records back.
    pub(crate) async fn until_revoked(&mut self) -> v1::Revoked {
        while self.revoked.is_empty() {
            assert!(self.pump().await, "ended early: {:?} {:?}", self.ended, self.goaway);
        }
        self.revoked.pop_front().expect("just looked")
    }

    /// Waits for the end of the stream.
    pub(crate) async fn until_ended(&mut self) -> Result<(), Status> {
        while self.ended.is_none() {
            self.pump().await;
        }
        self.ended.clone().expect("just looked")
    }
}

/// The records of a frame, in either form.
pub(crate) fn gotten(deliver: &v1::Deliver) -> Vec<Got> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let count = |offset: u64| {
        let count = deliver.counts.iter().find(|count| count.offset == offset);
        count.map_or((1, 0), |count| (count.attempts, count.failures))
    };
    let got = |offset: u64, key: Option<&Bytes>, value: Option<&Bytes>| Got {
        topic: deliver.topic.clone(),
        partition: deliver.partition,
        offset,
        epoch: deliver.session_epoch,
        seq: deliver.delivery_seq,
        key: key.map(text),
        value: value.map(text).unwrap_or_default(),
        attempts: count(offset).0,
        failures: count(offset).1,
        replayed: deliver.replayed,
    };
    let is_mine = |offset: u64| {
        deliver.ranges.iter().any(|one| (one.start_offset..one.end_offset).contains(&offset))
    };
    let mut all: Vec<Got> = deliver
        .records
        .iter()
        .map(|record| got(record.offset, record.key.as_ref(), record.value.as_ref()))
        .collect();
    for batch in RecordBatch::split(&deliver.batches) {
        for record in batch.expect("whole").records(usize::MAX).expect("inflates") {
            let record = record.expect("whole");
            let Record { key, value, .. } = &record.record;
            all.push(got(record.offset.0, key.as_ref(), value.as_ref()));
        }
    }
    all.retain(|one| is_mine(one.offset));
    let mine: u64 = deliver.ranges.iter().map(|one| one.end_offset - one.start_offset).sum();
    assert_eq!(all.len() as u64, mine, "every record given out is there");
    all
}
