//! One WebSocket: what its client asks is done in order, tails go on beside, and one writer sends what all of them say.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::json;
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{interval, sleep, timeout},
};

use super::{
    asked::{self, CreditIn, Head, Id, Produce, Settle},
    frame::{self, Frame},
    jobs,
    tailing::{self, Told},
};
use crate::{
    gateway::web::{
        WebDoor, body,
        call::Call,
        problem::Problem,
        produce::{self, To},
        receive, reply,
        tail::Tail,
    },
    service::{delivery::session::SessionIn, produce::Acks},
};

/// Most tails and push sessions of one socket.
const GOING_MAX: usize = 16;
/// Messages that wait for the socket.
const WAITING_MAX: usize = 2;
/// What a client may ask.
const OPS: &str = "produce, tail, end, subscribe, credit, settle, pause, resume or drain";
/// A ping goes out so often.
const PING: Duration = Duration::from_secs(15);
/// A client that says nothing for so long, not even to pings, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Time to send what waits once the client is not listened to any more.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a message that are not counted.
const FREE_BYTES: usize = 8 << 10;
/// Most bytes of the reason in a close frame.
const REASON_BYTES_MAX: usize = 120;

/// One session.
pub(super) struct Session {
    door: WebDoor,
    call: Call,
    going: HashMap<Id, Going>,
    running: JoinSet<()>,
}

/// Something that goes on beside.
struct Going {
    task: AbortHandle,
    what: What,
}

enum What {
    /// A tail, and where it stands.
    Tail(Told),
    /// A push session. It is lost with this, and may be resumed for a moment.
    Jobs(SessionIn),
}

/// Why a session ends.
struct End {
    /// Of the close frame.
    code: u16,
    /// For people.
    reason: String,
    /// Push sessions are not lost by it.
    gives_back: bool,
}

impl Session {
    pub(super) fn new(door: WebDoor, call: Call) -> Session {
        Session { door, call, going: HashMap::new(), running: JoinSet::new() }
    }

    /// Serves the client until it leaves or the broker stops.
    pub(super) async fn run(self, socket: WebSocket) {
        let (sink, stream) = socket.split();
        let (out, frames) = mpsc::channel(WAITING_MAX);
        let (why, ended) = oneshot::channel();
        let reading = async {
            drop(why.send(self.read(stream, out).await));
            // What still waits is not sent to a client that does not take it.
            sleep(LINGER).await;
        };
        tokio::select! {
            () = write(sink, frames, ended) => {}
            () = reading => {}
        }
    }

    /// Does what the client asks, and ends what goes on beside when it leaves.
    async fn read(mut self, mut stream: SplitStream<WebSocket>, out: Sender<Frame>) -> End {
        let end = self.read_on(&mut stream, &out).await;
        // A polite end, and that of the broker, count against no record: what is held is given back.
        for going in self.going.values() {
            if let (What::Jobs(session), true) = (&going.what, end.gives_back) {
                session.drain();
            }
        }
        end
    }

    async fn read_on(&mut self, stream: &mut SplitStream<WebSocket>, out: &Sender<Frame>) -> End {
        let shutdown = self.door.shutdown.clone();
        loop {
            let next = tokio::select! {
                biased;
                // First, so that the id of what said its last is free for the message that follows.
                Some(over) = self.running.join_next_with_id() => {
                    self.forget(over);
                    continue;
                }
                next = timeout(SILENCE_MAX, stream.next()) => next,
                () = shutdown.begun() => return End::politely(close_code::AWAY, "the broker stops"),
                () = out.closed() => return End::of("nothing can be sent"),
            };
            let text = match next {
                Err(_) => return End::of("the client was silent"),
                Ok(Some(Ok(Message::Close(_)))) => return End::politely(close_code::NORMAL, ""),
                Ok(None) => return End::of("the connection was lost"),
                Ok(Some(Err(error))) => return End::broken(&error),
                // Its answer stands in the buffer of the sink by now: no more of them than the writer takes.
                Ok(Some(Ok(Message::Ping(_)))) => {
                    drop(out.send(Frame::Flush).await);
                    continue;
                }
                Ok(Some(Ok(Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Binary(_)))) => {
                    let problem = Problem::field("message", "text", "binary");
                    drop(out.send(frame::problem(None, &problem)).await);
                    continue;
                }
            };
            // What waits for room in a mailbox waits for the writer, which may be gone.
            let answer = tokio::select! {
                answer = self.answer(&text, out) => answer,
                () = out.closed() => continue,
            };
            if let Some(answer) = answer {
                drop(out.send(answer).await);
            }
        }
    }

    /// Forgets what is over.
    fn forget(&mut self, over: Result<(task::Id, ()), JoinError>) {
        let over = over.map_or_else(|error| error.id(), |(task, ())| task);
        self.going.retain(|_, going| going.task.id() != over);
    }

    /// What to say to a message at once.
    async fn answer(&mut self, text: &str, out: &Sender<Frame>) -> Option<Frame> {
        let head = body::parse::<Head>(text.as_bytes());
        let id = head.as_ref().ok().and_then(|head| head.id().ok().flatten());
        let answer = match head {
            Ok(head) => self.act(&head, text, out).await,
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(|problem| Some(frame::problem(id.as_ref(), &problem)))
    }

    async fn act(
        &mut self,
        head: &Head,
        text: &str,
        out: &Sender<Frame>,
    ) -> Result<Option<Frame>, Problem> {
        let id = head.id()?;
        match head.op.as_str() {
            "produce" => self.produce(id.as_ref(), text).await.map(Some),
            "tail" => self.tail(needed(id)?, text, out).map(Some),
            "end" => self.end(&needed(id)?, text).map(Some),
            "subscribe" => self.subscribe(needed(id)?, text, out).await.map(|()| None),
            "credit" | "settle" | "pause" | "resume" | "drain" => {
                self.tell(&head.op, &needed(id)?, text).await.map(|()| None)
            }
            other => Err(Problem::field("op", OPS, other)),
        }
    }

    async fn produce(&self, id: Option<&Id>, text: &str) -> Result<Frame, Problem> {
        let _share = match text.len() > FREE_BYTES {
            true => self.call.caller.receiving.take(text.len()).await?,
            false => Default::default(),
        };
        let asked: Produce<'_> = body::parse(text.as_bytes())?;
        let acks = match asked.acks {
            asked::Acks::Leader => Acks::Leader,
            asked::Acks::All => Acks::All,
        };
        let topic = self.door.services.admin.topic(&asked.topic)?;
        let to = To { partition: asked.partition, acks };
        let records = produce::converted(asked.records)?;
        // Taken before anything is done, so that what is done is answered.
        let share = reply::room_for(records.len(), &self.call.caller.replies).await?;
        let placed = produce::append((&self.door, &self.call), topic, to, records).await?;
        let answer = json!({"op": "produced", "id": id.map(Id::json), "records": placed});
        Ok(frame::paid(answer.to_string(), share))
    }

    fn tail(&mut self, id: Id, text: &str, out: &Sender<Frame>) -> Result<Frame, Problem> {
        let wanted = asked::wanted(text)?;
        self.check_free(&id)?;
        let room = self.call.caller.replies.clone();
        let tail = Tail::open((self.door.clone(), room), wanted)?;
        let cursor = tail.cursor().to_string();
        let answer = json!({"op": "tailing", "id": id.json(), "cursor": cursor});
        let told: Told = Arc::new(cursor.into());
        let (own, out, noted) = (id.clone(), out.clone(), told.clone());
        let task = self.running.spawn(async move {
            tailing::run(own, tail, out, noted).await;
        });
        self.going.insert(id, Going { task, what: What::Tail(told) });
        Ok(frame::small(&answer))
    }

    /// Refuses an id in use, and more than there may be.
    fn check_free(&self, id: &Id) -> Result<(), Problem> {
        if self.going.contains_key(id) {
            let expected = "that of no tail or subscription of this socket";
            return Err(Problem::field("id", expected, id.json()));
        }
        if self.going.len() == GOING_MAX {
            let expected =
                format!("one of at most {GOING_MAX} tails and subscriptions of a socket");
            return Err(Problem::field("id", &expected, id.json()));
        }
        Ok(())
    }

    fn end(&mut self, id: &Id, text: &str) -> Result<Frame, Problem> {
        asked::check_plain(text)?;
        let Some(Going { task, what: What::Tail(told) }) = self.going.get(id) else {
            let expected = "that of a tail of this socket; a subscription is ended by `drain`";
            return Err(Problem::field("id", expected, id.json()));
        };
        task.abort();
        let cursor = told.lock().clone();
        self.going.remove(id);
        Ok(frame::small(&json!({"op": "ended", "id": id.json(), "cursor": cursor})))
    }

    /// Opens a push session; it says itself that it is open.
    async fn subscribe(&mut self, id: Id, text: &str, out: &Sender<Frame>) -> Result<(), Problem> {
        let asked = body::parse(text.as_bytes())?;
        self.check_free(&id)?;
        let (session_id, input, output) = jobs::open((&self.door, &self.call), asked).await?;
        let (own, room) = (id.clone(), self.call.caller.replies.clone());
        let outlet = (out.clone(), room);
        let task = self.running.spawn(async move {
            jobs::run((own, session_id), output, outlet).await;
        });
        self.going.insert(id, Going { task, what: What::Jobs(input) });
        Ok(())
    }

    /// Tells a push session something.
    async fn tell(&self, op: &str, id: &Id, text: &str) -> Result<(), Problem> {
        let Some(Going { what: What::Jobs(session), .. }) = self.going.get(id) else {
            let expected = "that of a subscription of this socket";
            return Err(Problem::field("id", expected, id.json()));
        };
        match op {
            "credit" => {
                let CreditIn { credit, .. } = body::parse(text.as_bytes())?;
                let (records, bytes) = credit.totals()?;
                session.credit(records, bytes);
            }
            "settle" => {
                let Settle { settle_id, items, sync, .. } = body::parse(text.as_bytes())?;
                if sync && settle_id == 0 {
                    return Err(Problem::field("settle_id", "set together with `sync`", settle_id));
                }
                session.settle(settle_id, receive::settle_items(items)?, sync).await;
            }
            plain => {
                asked::check_plain(text)?;
                match plain {
                    "pause" => session.pause(true),
                    "resume" => session.pause(false),
                    _ => session.drain(),
                }
            }
        }
        Ok(())
    }
}

fn needed(id: Option<Id>) -> Result<Id, Problem> {
    id.ok_or_else(|| Problem::field("id", "given", "none"))
}

impl End {
    /// Both sides know.
    fn politely(code: u16, reason: &str) -> End {
        End { code, reason: reason.to_owned(), gives_back: true }
    }

    /// The client may come back for what it holds.
    fn of(reason: &str) -> End {
        End { code: close_code::AWAY, reason: reason.to_owned(), gives_back: false }
    }

    /// A message could not be taken.
    fn broken(error: &axum::Error) -> End {
        let mut reason = error.to_string();
        let is_size = reason.starts_with("Space limit exceeded");
        let code = if is_size { close_code::SIZE } else { close_code::PROTOCOL };
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        End { code, reason, gives_back: false }
    }
}

/// Sends what comes until there is no more, then closes.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut frames: Receiver<Frame>,
    ended: oneshot::Receiver<End>,
) {
    let mut pings = interval(PING);
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            _ = pings.tick() => Some(Frame::Ping),
        };
        let sent = match frame {
            // Its bytes are counted for as long as a copy of them waits in the sink.
            Some(Frame::Text(text)) => sink.send(Message::Text(text.clone())).await,
            Some(Frame::Ping) => sink.send(Message::Ping(Default::default())).await,
            Some(Frame::Flush) => sink.flush().await,
            None => break,
        };
        if sent.is_err() {
            break;
        }
    }
    // Those who still have something to say hear that nobody takes it.
    drop(frames);
    if let Ok(End { code, reason, .. }) = ended.await {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // After the client's own close frame only the answer to it is sent, and `close` does that.
        drop(sink.send(close).await);
        drop(sink.close().await);
    }
}
