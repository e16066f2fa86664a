//! A broker for push tests: one partition of one subscription, real sockets, faults on demand.
//!
//! It keeps the rules a subscriber relies on: credit, leases by (epoch, number), resume with what was not
//! received, settlements that are answered when asked for. It has no order, no timers and no retry delay.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    ops::Range,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_core::Stream;
use parking_lot::Mutex;
use riverrun_proto::{
    BatchBuilder, BuilderOptions, Compression, LeaderEpoch, Offset, Record,
    grpc::v1::{self, push_server},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use v1::{session_request::Frame, session_response::Frame as Answer, settle_item::Outcome};

use super::refusal;

/// Name of the topic.
pub(crate) const TOPIC: &str = "orders";

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    InFlight { session: String, token: (u64, u64), started: bool },
    Done,
    Dead(String),
}

/// A record and how often it was handed out and failed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    value: Bytes,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
}

/// One session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    epoch: u64,
    last_seq: u64,
    /// What was delivered, by number: epoch and offsets.
    deliveries: BTreeMap<u64, (u64, Range<u64>)>,
    sent: (u64, u64),
    pub(crate) credit: (u64, u64),
    pub(crate) drained: bool,
    pub(crate) heartbeats: u64,
    pub(crate) paused: bool,
}

/// The state of a [`FakePush`].
#[derive(Debug, Default)]
pub(crate) struct PushModel {
    pub(crate) entries: Vec<Entry>,
    pub(crate) sessions: HashMap<String, Session>,
    /// What the last session asked to be created.
    pub(crate) created: Option<v1::SubscriptionSpec>,
    /// Records of one delivery at most.
    pub(crate) run_max: u64,
    pub(crate) heartbeat_ms: u32,
    pub(crate) ack_wait_ms: u64,
    pub(crate) order: v1::DeliveryOrder,
    /// Settlements are lost on the way.
    pub(crate) deaf: bool,
    /// Settlements count but are not answered.
    pub(crate) mute: bool,
    /// The next session is not resumed.
    pub(crate) forgetful: bool,
    /// Sessions are refused with this.
    pub(crate) refuses: Option<v1::ErrorCode>,
    /// Sent to every session at the next look, once.
    pub(crate) says: Vec<Answer>,
    /// Settle frames that counted, and items in them.
    pub(crate) settle_frames: u64,
    pub(crate) settle_items: u64,
    /// Extensions that counted.
    pub(crate) extended: u64,
    epochs: u64,
}

/// A running fake.
pub(crate) struct FakePush {
    pub(crate) model: Arc<Mutex<PushModel>>,
    pub(crate) address: SocketAddr,
    /// Rises with every change that a session must look at.
    changes: watch::Sender<u64>,
    /// Rises with every cut of all streams.
    cuts: watch::Sender<u64>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    model: Arc<Mutex<PushModel>>,
    changes: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
}

impl FakePush {
    /// Starts a broker with `count` records whose values are their offsets.
    pub(crate) async fn start(count: u64) -> FakePush {
        let model = PushModel {
            run_max: 64,
            heartbeat_ms: 5_000,
            ack_wait_ms: 30_000,
            ..PushModel::default()
        };
        let model = Arc::new(Mutex::new(model));
        let (changes, cuts) = (watch::Sender::new(0), watch::Sender::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service =
            Service { model: model.clone(), changes: changes.clone(), cuts: cuts.clone() };
        let server = Server::builder()
            .add_service(push_server::PushServer::new(service))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        let fake = FakePush { model, address, changes, cuts, server };
        fake.append(count);
        fake
    }

    /// Adds records whose values are their offsets.
    pub(crate) fn append(&self, count: u64) {
        self.change(|model| {
            let from = model.entries.len() as u64;
            let entry = |offset: u64| Entry {
                value: offset.to_string().into(),
                state: State::Ready,
                attempts: 0,
                failures: 0,
            };
            model.entries.extend((from..from + count).map(entry));
        });
    }

    /// Changes the model and has every session look at it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut PushModel) -> T) -> T {
        let changed = change(&mut self.model.lock());
        self.changes.send_modify(|count| *count += 1);
        changed
    }

    /// Breaks every stream. Leases stay, as within the grace.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> crate::Client {
        crate::Client::builder().seed(1).connect(&self.address.to_string()).await.unwrap()
    }

    /// Waits until the model is as `is` says.
    pub(crate) async fn until(&self, is: impl Fn(&PushModel) -> bool) {
        let mut changes = self.changes.subscribe();
        let reached = async {
            while !is(&self.model.lock()) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), reached).await;
        assert!(waited.is_ok(), "the broker came to {:?}", self.model.lock());
    }
}

impl Drop for FakePush {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl PushModel {
    pub(crate) fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.entries.iter().filter(|entry| is(&entry.state)).count()
    }

    fn open(&mut self, open: &v1::OpenSession) -> Vec<Answer> {
        self.created.clone_from(&open.create);
        self.epochs += 1;
        let id = &open.session_id;
        let known = self.sessions.get(id).map(|session| session.epoch);
        let resumed = open.resume_from.filter(|point| {
            !std::mem::take(&mut self.forgetful) && known == Some(point.session_epoch)
        });
        if resumed.is_none() {
            self.release(id);
            self.sessions.insert(id.clone(), Session::default());
        }
        let session = self.sessions.get_mut(id).expect("inserted above");
        session.epoch = self.epochs;
        session.drained = false;
        let missed = resumed.map_or(u64::MAX, |point| point.last_delivery_seq + 1);
        let again: Vec<_> =
            session.deliveries.range(missed..).map(|(seq, sent)| (*seq, sent.clone())).collect();
        let (mut messages_total, mut bytes_total) = session.sent;
        for offset in again.iter().flat_map(|(_, (_, range))| range.clone()) {
            messages_total -= 1;
            bytes_total -= self.entries[offset as usize].value.len() as u64;
        }
        let mut answers = vec![Answer::Opened(v1::Opened {
            session_epoch: self.epochs,
            resumed: resumed.is_some(),
            heartbeat_interval_ms: self.heartbeat_ms,
            ack_wait_ms: self.ack_wait_ms,
            max_lease_ms: 3_600_000,
            max_in_flight: open.max_in_flight,
            order: self.order.into(),
            credit_used: Some(v1::CreditUsed { messages_total, bytes_total }),
        })];
        for (seq, (epoch, range)) in again {
            answers.push(self.deliver((epoch, seq), range, true));
        }
        answers
    }

    /// What a session holds is ready again.
    pub(crate) fn release(&mut self, id: &str) {
        for entry in &mut self.entries {
            if matches!(&entry.state, State::InFlight { session, .. } if session == id) {
                entry.state = State::Ready;
            }
        }
    }

    /// The next delivery within the credit.
    fn next(&mut self, id: &str) -> Option<Answer> {
        let session = self.sessions.get(id)?;
        let left = session.credit.0.saturating_sub(session.sent.0).min(self.run_max);
        let may =
            left > 0 && session.credit.1 > session.sent.1 && !session.drained && !session.paused;
        let start = self.entries.iter().position(|entry| entry.state == State::Ready);
        let start = start.filter(|_| may)?;
        let is_ready = |entry: &&mut Entry| entry.state == State::Ready;
        let session = self.sessions.get_mut(id)?;
        session.last_seq += 1;
        let token = (session.epoch, session.last_seq);
        let mut end = start as u64;
        for entry in
            self.entries[start..].iter_mut().take_while(is_ready).take(left.try_into().unwrap())
        {
            entry.state = State::InFlight { session: id.into(), token, started: false };
            entry.attempts += 1;
            session.sent.0 += 1;
            session.sent.1 += entry.value.len() as u64;
            end += 1;
        }
        let range = start as u64..end;
        session.deliveries.insert(token.1, (token.0, range.clone()));
        Some(self.deliver(token, range, false))
    }

    fn deliver(&self, (epoch, seq): (u64, u64), range: Range<u64>, replayed: bool) -> Answer {
        let entries = &self.entries[range.start as usize..range.end as usize];
        let mut builder = BatchBuilder::new(Compression::None, BuilderOptions::default());
        for entry in entries {
            let value = Some(entry.value.clone());
            builder.push(&Record { value, ..Record::default() }).unwrap();
        }
        let batch = builder.build().unwrap().stamped(Offset(range.start), LeaderEpoch(0));
        let counts = (range.start..).zip(entries).filter(|(_, e)| e.attempts > 1 || e.failures > 0);
        Answer::Deliver(v1::Deliver {
            topic: TOPIC.into(),
            delivery_seq: seq,
            ranges: vec![v1::OffsetRange { start_offset: range.start, end_offset: range.end }],
            batches: batch.into_bytes(),
            counts: counts
                .map(|(offset, entry)| v1::DeliveryCount {
                    offset,
                    attempts: entry.attempts,
                    failures: entry.failures,
                })
                .collect(),
            replayed,
            session_epoch: epoch,
            ..v1::Deliver::default()
        })
    }

    /// Applies outcomes; one status per item.
    pub(crate) fn settle(&mut self, items: &[v1::SettleItem]) -> Vec<v1::SettleResult> {
        self.settle_frames += 1;
        self.settle_items += items.len() as u64;
        let mut results = Vec::new();
        for (item, number) in items.iter().zip(0..) {
            let offsets = item.start_offset..item.end_offset;
            let status = offsets.map(|offset| self.settle_one(offset, item)).max();
            let status = status.unwrap_or(v1::SettleStatus::Invalid).into();
            results.push(v1::SettleResult { item: number, status, range: None });
        }
        results
    }

    fn settle_one(&mut self, offset: u64, item: &v1::SettleItem) -> v1::SettleStatus {
        let Some(entry) = self.entries.get_mut(offset as usize) else {
            return v1::SettleStatus::NotDelivered;
        };
        let outcome = item.outcome.clone().expect("the client always sets one");
        let named = (item.session_epoch, item.delivery_seq);
        let fits = matches!(&entry.state, State::InFlight { token, .. } if *token == named);
        match (outcome, &mut entry.state) {
            (Outcome::Ack(_), State::Ready | State::Done) => entry.state = State::Done,
            (Outcome::Ack(_), _) if fits => entry.state = State::Done,
            (Outcome::Nack(_), _) if fits => {
                entry.state = State::Ready;
                entry.failures += 1;
            }
            (Outcome::Release(_), _) if fits => entry.state = State::Ready,
            (Outcome::Reject(reject), _) if fits => entry.state = State::Dead(reject.reason),
            (Outcome::Extend(_), _) if fits => self.extended += 1,
            (Outcome::Started(_), State::InFlight { started, .. }) if fits => *started = true,
            _ => return v1::SettleStatus::StaleLease,
        }
        v1::SettleStatus::Ok
    }

    /// Takes a frame of a session; what is to be answered.
    fn take(&mut self, id: &str, frame: Frame) -> Vec<Answer> {
        if let Frame::Settle(settle) = &frame {
            if self.deaf {
                return Vec::new();
            }
            let results = self.settle(&settle.items);
            let refused = |r: &v1::SettleResult| r.status != i32::from(v1::SettleStatus::Ok);
            let results: Vec<_> =
                results.into_iter().filter(|result| settle.sync || refused(result)).collect();
            if self.mute || results.is_empty() {
                return Vec::new();
            }
            return vec![Answer::Settled(v1::Settled { settle_id: settle.settle_id, results })];
        }
        let session = self.sessions.get_mut(id).expect("opened first");
        match frame {
            Frame::Credit(credit) => {
                let v1::Credit { messages_total, bytes_total } = credit;
                session.credit.0 = session.credit.0.max(messages_total);
                session.credit.1 = session.credit.1.max(bytes_total);
            }
            Frame::Drain(_) => session.drained = true,
            Frame::Heartbeat(_) => session.heartbeats += 1,
            Frame::Pause(_) => session.paused = true,
            Frame::Resume(_) => session.paused = false,
            Frame::Open(_) | Frame::Settle(_) => panic!("out of place"),
        }
        Vec::new()
    }
}

type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send + 'static>>;

impl Service {
    /// Serves one stream until it breaks or ends.
    async fn serve(
        self,
        mut requests: Streaming<v1::SessionRequest>,
        out: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    ) {
        let (mut changes, mut cuts) = (self.changes.subscribe(), self.cuts.subscribe());
        cuts.mark_unchanged();
        let Some(Ok(v1::SessionRequest { frame: Some(Frame::Open(open)) })) = requests.next().await
        else {
            panic!("the first frame opens");
        };
        let refuses = self.model.lock().refuses;
        if let Some(code) = refuses {
            let _gone = out.send(Err(refusal(code))).await;
            return;
        }
        let id = open.session_id.clone();
        let mut answers = self.model.lock().open(&open);
        let epoch = self.model.lock().sessions[&id].epoch;
        loop {
            answers.append(&mut std::mem::take(&mut self.model.lock().says));
            for frame in answers.drain(..) {
                let response = v1::SessionResponse { frame: Some(frame) };
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            let next = self.model.lock().next(&id);
            if let Some(next) = next {
                answers.push(next);
                self.changes.send_modify(|count| *count += 1);
                continue;
            }
            tokio::select! {
                biased;
                _ = cuts.changed() => {
                    let _gone = out.send(Err(Status::unknown("injected break"))).await;
                    return;
                }
                request = requests.next() => {
                    let Some(Ok(request)) = request else { break };
                    let mut model = self.model.lock();
                    if model.sessions[&id].epoch != epoch {
                        return;
                    }
                    answers = model.take(&id, request.frame.expect("a frame"));
                    drop(model);
                    self.changes.send_modify(|count| *count += 1);
                }
                _ = changes.changed() => {}
            }
        }
        // Half-closed: what is left goes back.
        let mut model = self.model.lock();
        if model.sessions[&id].epoch == epoch {
            model.release(&id);
        }
        drop(model);
        self.changes.send_modify(|count| *count += 1);
    }
}

#[tonic::async_trait]
impl push_server::Push for Service {
    type SessionStream = ResponseStream;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        let (out, answers) = mpsc::channel(64);
        tokio::spawn(self.clone().serve(request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn receive(
        &self,
        request: Request<v1::ReceiveRequest>,
    ) -> Result<Response<v1::ReceiveResponse>, Status> {
        let request = request.into_inner();
        let mut model = self.model.lock();
        let id = request.session_id;
        let epochs = model.epochs + 1;
        if !model.sessions.contains_key(&id) {
            model.epochs = epochs;
            let session = Session { epoch: epochs, ..Session::default() };
            model.sessions.insert(id.clone(), session);
        }
        let session = model.sessions.get_mut(&id).expect("inserted above");
        session.credit = (session.sent.0 + u64::from(request.max_records), u64::MAX);
        let session_epoch = session.epoch;
        let mut deliveries = Vec::new();
        while let Some(Answer::Deliver(deliver)) = model.next(&id) {
            deliveries.push(deliver);
        }
        let ack_wait_ms = model.ack_wait_ms;
        let response = v1::ReceiveResponse {
            session_id: id,
            session_epoch,
            deliveries,
            ack_wait_ms,
            ..v1::ReceiveResponse::default()
        };
        Ok(Response::new(response))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let results = self.model.lock().settle(&request.into_inner().items);
        self.changes.send_modify(|count| *count += 1);
        Ok(Response::new(v1::SettleResponse { results }))
    }
}
