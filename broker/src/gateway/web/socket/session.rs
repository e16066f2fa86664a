//! One WebSocket: what its client asks is done in order, tails go on beside, and one writer sends what all of them say.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{interval, timeout},
};

use super::{
    MESSAGE_BYTES_MAX,
    asked::{self, CreditIn, Head, Id, Produce, Settle},
    frame, jobs,
    tailing::{self, Told},
};
use crate::{
    gateway::web::{
        WebDoor, body,
        call::Call,
        problem::Problem,
        produce::{self, To},
        receive,
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
/// Bytes of a message that are not counted.
const FREE_BYTES: usize = 8 << 10;
/// Most bytes of the reason in a close frame.
const REASON_BYTES_MAX: usize = 120;

/// One session.
pub(super) struct Session {
    door: WebDoor,
    call: Call,
    going: HashMap<Id, Going>,
    running: JoinSet<Id>,
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
type End = (u16, String);

impl Session {
    pub(super) fn new(door: WebDoor, call: Call) -> Session {
        Session { door, call, going: HashMap::new(), running: JoinSet::new() }
    }

    /// Serves the client until it leaves or the broker stops.
    pub(super) async fn run(self, socket: WebSocket) {
        let (sink, stream) = socket.split();
        let (out, frames) = mpsc::channel(WAITING_MAX);
        let (why, ended) = tokio::sync::oneshot::channel();
        let reading = async {
            drop(why.send(self.read(stream, out).await));
        };
        let writing = async {
            let mut sink = write(sink, frames).await?;
            let (code, reason) = ended.await.ok()?;
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            sink.send(close).await.ok()
        };
        tokio::join!(reading, writing);
    }

    /// Does what the client asks, and ends what goes on beside when it leaves.
    async fn read(mut self, mut stream: SplitStream<WebSocket>, out: Sender<Utf8Bytes>) -> End {
        let shutdown = self.door.shutdown.clone();
        loop {
            let next = tokio::select! {
                next = timeout(SILENCE_MAX, stream.next()) => next,
                Some(over) = self.running.join_next_with_id() => {
                    self.forget(over);
                    continue;
                }
                () = shutdown.begun() => return (close_code::AWAY, "the broker stops".into()),
                () = out.closed() => return (close_code::AWAY, "nothing can be sent".into()),
            };
            let text = match next {
                Err(_) => return (close_code::AWAY, "the client was silent".into()),
                Ok(None | Some(Ok(Message::Close(_)))) => return (close_code::NORMAL, "".into()),
                Ok(Some(Err(error))) => return (close_code::POLICY, reason(&error)),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Binary(_)))) => {
                    let problem = Problem::field("message", "text", "binary");
                    drop(out.send(frame::problem(None, &problem).into()).await);
                    continue;
                }
            };
            // What waits for room in a mailbox waits for the writer, which may be gone.
            let answer = tokio::select! {
                answer = self.answer(&text, &out) => answer,
                () = out.closed() => continue,
            };
            if let Some(answer) = answer {
                drop(out.send(answer).await);
            }
        }
    }

    /// Forgets a tail that is over, unless another has its id by now.
    fn forget(&mut self, over: Result<(task::Id, Id), JoinError>) {
        let Ok((task, id)) = over else { return };
        if self.going.get(&id).is_some_and(|going| going.task.id() == task) {
            self.going.remove(&id);
        }
    }

    /// What to say to a message at once.
    async fn answer(&mut self, text: &str, out: &Sender<Utf8Bytes>) -> Option<Utf8Bytes> {
        let head = body::parse::<Head>(text.as_bytes());
        let id = head.as_ref().ok().and_then(|head| head.id().ok().flatten());
        let answer = match head {
            Ok(head) => self.act(&head, text, out).await,
            Err(problem) => Err(problem),
        };
        let answer = match answer {
            Ok(answer) => frame::counted(answer?.to_string(), &self.call.caller.replies).await,
            Err(problem) => Err(problem),
        };
        Some(answer.unwrap_or_else(|problem| frame::problem(id.as_ref(), &problem).into()))
    }

    async fn act(
        &mut self,
        head: &Head,
        text: &str,
        out: &Sender<Utf8Bytes>,
    ) -> Result<Option<Value>, Problem> {
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

    async fn produce(&self, id: Option<&Id>, text: &str) -> Result<Value, Problem> {
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
        let placed = produce::append((&self.door, &self.call), topic, to, records).await?;
        Ok(json!({"op": "produced", "id": id.map(Id::json), "records": placed}))
    }

    fn tail(&mut self, id: Id, text: &str, out: &Sender<Utf8Bytes>) -> Result<Value, Problem> {
        let wanted = asked::wanted(text)?;
        self.check_free(&id)?;
        let room = self.call.caller.replies.clone();
        let tail = Tail::open((self.door.clone(), room), wanted)?;
        let cursor = tail.cursor().to_string();
        let answer = json!({"op": "tailing", "id": id.json(), "cursor": cursor});
        let told: Told = Arc::new(cursor.into());
        let (own, out, noted) = (id.clone(), out.clone(), told.clone());
        let task = self.running.spawn(async move {
            tailing::run(own.clone(), tail, out, noted).await;
            own
        });
        self.going.insert(id, Going { task, what: What::Tail(told) });
        Ok(answer)
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

    fn end(&mut self, id: &Id, text: &str) -> Result<Value, Problem> {
        asked::check_plain(text)?;
        let Some(Going { task, what: What::Tail(told) }) = self.going.get(id) else {
            let expected = "that of a tail of this socket; a subscription is ended by `drain`";
            return Err(Problem::field("id", expected, id.json()));
        };
        task.abort();
        let cursor = told.lock().clone();
        self.going.remove(id);
        Ok(json!({"op": "ended", "id": id.json(), "cursor": cursor}))
    }

    /// Opens a push session; it says itself that it is open.
    async fn subscribe(
        &mut self,
        id: Id,
        text: &str,
        out: &Sender<Utf8Bytes>,
    ) -> Result<(), Problem> {
        let asked = body::parse(text.as_bytes())?;
        self.check_free(&id)?;
        let (session_id, input, output) = jobs::open((&self.door, &self.call), asked).await?;
        let (own, room) = (id.clone(), self.call.caller.replies.clone());
        let outlet = (out.clone(), room);
        let task = self.running.spawn(async move {
            jobs::run((own.clone(), session_id), output, outlet).await;
            own
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

/// What a broken message is told, in so many bytes as a close frame takes.
fn reason(error: &axum::Error) -> String {
    let mut text = format!("{error} (a message has at most {MESSAGE_BYTES_MAX} bytes)");
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    text
}

/// Sends what comes until there is no more; `None` when the socket takes nothing any more.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut frames: Receiver<Utf8Bytes>,
) -> Option<SplitSink<WebSocket, Message>> {
    let mut pings = interval(PING);
    loop {
        let message = tokio::select! {
            frame = frames.recv() => match frame {
                Some(text) => Message::Text(text),
                None => return Some(sink),
            },
            _ = pings.tick() => Message::Ping(Default::default()),
        };
        sink.send(message).await.ok()?;
    }
}
