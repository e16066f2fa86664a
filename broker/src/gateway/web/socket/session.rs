//! One WebSocket: what its client asks is done in order, tails go on beside, and one writer sends what all of them say.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{
        mpsc::{self, Receiver, Sender},
        oneshot,
    },
    task::{self, AbortHandle, JoinError, JoinSet},
    time::{Instant, interval_at, sleep, timeout},
};

use super::{
    ask::{self, Ask, Asked, Codec, Id, Produce, Settle, Subscribe},
    frame::{Frame, Told},
    jobs,
    tailing::{self, Stand},
};
use crate::{
    gateway::web::{
        WebDoor,
        call::Call,
        problem::Problem,
        produce, reply,
        tail::{Tail, Wanted},
    },
    quota::Share,
    service::delivery::session::SessionIn,
};

/// Most tails and push sessions of one socket.
const GOING_MAX: usize = 16;
/// Messages that wait for the socket.
const WAITING_MAX: usize = 2;
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
    codec: Codec,
    /// Gives back what comes, for yardsticks.
    #[cfg(feature = "echo")]
    is_echo: bool,
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
    Tail(Stand),
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
    pub(super) fn new(door: WebDoor, call: Call, codec: Codec) -> Session {
        Session {
            door,
            call,
            codec,
            #[cfg(feature = "echo")]
            is_echo: false,
            going: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// One that gives back what comes.
    #[cfg(feature = "echo")]
    pub(super) fn echo(door: WebDoor, call: Call) -> Session {
        Session { is_echo: true, ..Session::new(door, call, Codec::Json) }
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
            let message = match next {
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
                Ok(Some(Ok(message @ (Message::Text(_) | Message::Binary(_))))) => message,
            };
            // What waits for room in a mailbox waits for the writer, which may be gone.
            let answer = tokio::select! {
                answer = self.answer(message, out) => answer,
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
    async fn answer(&mut self, message: Message, out: &Sender<Frame>) -> Option<Frame> {
        #[cfg(feature = "echo")]
        if self.is_echo {
            return Some(Frame::Message(message));
        }
        let codec = self.codec;
        let _share = match self.room_for(&message).await {
            Ok(share) => share,
            Err(problem) => {
                let id = codec.id(&message);
                return Some(codec.small(id.as_ref(), Told::Problem(&problem)));
            }
        };
        let Asked { id, ask } = codec.read(&message, &self.call.caller.address.ip().to_string());
        let answer = match ask {
            Ok(ask) => self.act(id.as_ref(), ask, out).await,
            Err(problem) => Err(problem),
        };
        answer.unwrap_or_else(|problem| Some(codec.small(id.as_ref(), Told::Problem(&problem))))
    }

    /// Room for what is made of a message; small ones are not counted.
    async fn room_for(&self, message: &Message) -> Result<Share, Problem> {
        let bytes = ask::bytes_of(message);
        if bytes <= FREE_BYTES {
            return Ok(Share::default());
        }
        Ok(self.call.caller.receiving.take(bytes).await?)
    }

    async fn act(
        &mut self,
        id: Option<&Id>,
        ask: Ask,
        out: &Sender<Frame>,
    ) -> Result<Option<Frame>, Problem> {
        match ask {
            Ask::Produce(asked) => return self.produce(id, asked).await.map(Some),
            Ask::Tail(wanted) => return self.tail(needed(id)?, wanted, out).map(Some),
            Ask::End => return self.end(needed(id)?).map(Some),
            Ask::Subscribe(asked) => self.subscribe(needed(id)?, *asked, out).await?,
            Ask::Credit(records, bytes) => self.session(needed(id)?)?.credit(records, bytes),
            Ask::Settle(Settle { settle_id, items, sync }) => {
                self.session(needed(id)?)?.settle(settle_id, items, sync).await;
            }
            Ask::Pause => self.session(needed(id)?)?.pause(true),
            Ask::Resume => self.session(needed(id)?)?.pause(false),
            Ask::Drain => self.session(needed(id)?)?.drain(),
            Ask::Nothing => {}
        }
        Ok(None)
    }

    async fn produce(&self, id: Option<&Id>, asked: Produce) -> Result<Frame, Problem> {
        let Produce { topic, to, records } = asked;
        let topic = self.door.services.admin.topic(&topic)?;
        // Taken before anything is done, so that what is done is answered.
        let share = reply::room_for(records.len(), &self.call.caller.replies).await?;
        let placed = produce::append((&self.door, &self.call), topic, to, records).await?;
        Ok(self.codec.write(id, Told::Produced(placed)).paid(share))
    }

    fn tail(&mut self, id: &Id, wanted: Wanted, out: &Sender<Frame>) -> Result<Frame, Problem> {
        self.check_free(id)?;
        let room = self.call.caller.replies.clone();
        let steps = &self.door.steps;
        let shared = match self.codec {
            Codec::Json => steps.json.clone(),
            Codec::Protobuf => steps.protobuf.clone(),
        };
        let tail = Tail::open((self.door.clone(), room), shared, wanted)?;
        let cursor = tail.cursor().to_string();
        let answer = self.codec.small(Some(id), Told::Tailing(&cursor));
        let stand: Stand = Arc::new(cursor.into());
        let (own, out, noted) = ((id.clone(), self.codec), out.clone(), stand.clone());
        let task = self.running.spawn(async move {
            tailing::run(own, tail, out, noted).await;
        });
        self.going.insert(id.clone(), Going { task, what: What::Tail(stand) });
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

    fn end(&mut self, id: &Id) -> Result<Frame, Problem> {
        let Some(Going { task, what: What::Tail(stand) }) = self.going.get(id) else {
            let expected = "that of a tail of this socket; a subscription is ended by `drain`";
            return Err(Problem::field("id", expected, id.json()));
        };
        task.abort();
        let cursor = stand.lock().clone();
        self.going.remove(id);
        Ok(self.codec.small(Some(id), Told::TailEnded(&cursor)))
    }

    /// Opens a push session; it says itself that it is open.
    async fn subscribe(
        &mut self,
        id: &Id,
        asked: Subscribe,
        out: &Sender<Frame>,
    ) -> Result<(), Problem> {
        self.check_free(id)?;
        let (session_id, input, output) = jobs::open(&self.door, asked).await?;
        let own = (id.clone(), session_id, self.codec);
        let outlet = (out.clone(), self.call.caller.replies.clone());
        let task = self.running.spawn(async move {
            jobs::run(own, output, outlet).await;
        });
        self.going.insert(id.clone(), Going { task, what: What::Jobs(input) });
        Ok(())
    }

    /// The push session of this id.
    fn session(&self, id: &Id) -> Result<&SessionIn, Problem> {
        match self.going.get(id) {
            Some(Going { what: What::Jobs(session), .. }) => Ok(session),
            Some(Going { what: What::Tail(_), .. }) | None => {
                let expected = "that of a subscription of this socket";
                Err(Problem::field("id", expected, id.json()))
            }
        }
    }
}

fn needed(id: Option<&Id>) -> Result<&Id, Problem> {
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
        let kinds =
            [("Space limit exceeded", close_code::SIZE), ("UTF-8 encoding", close_code::INVALID)];
        let known = kinds.iter().find(|(start, _)| reason.starts_with(start));
        let code = known.map_or(close_code::PROTOCOL, |(_, code)| *code);
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
    let mut pings = interval_at(Instant::now() + PING, PING);
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            _ = pings.tick() => Some(Frame::Ping),
        };
        let sent = match frame {
            // Its bytes are counted for as long as a copy of them waits in the sink.
            Some(Frame::Message(message)) => sink.send(message.clone()).await,
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
