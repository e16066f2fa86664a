//! One push session of a socket: how it is opened, and what it is told.
//!
//! The socket's own pings tell whether the client lives, so a session needs no signs of life of its own.

use tokio::sync::mpsc::Sender;

use super::{
    ask::{Codec, Id, Subscribe},
    frame::{Frame, Told, Written},
};
use crate::{
    gateway::web::{WebDoor, problem::Problem},
    quota::Room,
    service::delivery::session::{SessionIn, SessionOut},
};

/// Waits for room before a session is given up.
const TRIES: u32 = 10;

/// Opens a session. Gives its name with both halves.
pub(super) async fn open(
    door: &WebDoor,
    asked: Subscribe,
) -> Result<(String, SessionIn, SessionOut), Problem> {
    let Subscribe { request, credit } = asked;
    let session_id = request.session_id.clone();
    let (input, output) = door.services.delivery.open_session(request).await?;
    if let Some((records, bytes)) = credit {
        input.credit(records, bytes);
    }
    Ok((session_id, input, output))
}

/// Sends what the session is told, until it ends or nobody takes it.
pub(super) async fn run(
    (id, session_id, codec): (Id, String, Codec),
    mut output: SessionOut,
    (out, room): (Sender<Frame>, Room),
) {
    let problem = |problem: &Problem| codec.small(Some(&id), Told::Problem(problem));
    while let Some(told) = output.next().await {
        let frame = match told {
            Ok(told) => {
                roomy(codec.write(Some(&id), Told::Session(&session_id, Box::new(told))), &room)
                    .await
            }
            Err(error) => Ok(problem(&error.into())),
        };
        let (frame, given_up) = match frame {
            Ok(frame) => (frame, false),
            // What was handed out goes back and counts as no failure.
            Err(refused) => {
                output.release();
                (problem(&refused), true)
            }
        };
        if out.send(frame).await.is_err() {
            return;
        }
        if given_up {
            break;
        }
    }
    // When it is gone nobody waits for it.
    drop(out.send(codec.small(Some(&id), Told::SessionEnded)).await);
}

/// Counts a message, with more patience than an answer has: what it brings is leased by now.
async fn roomy(message: Written, room: &Room) -> Result<Frame, Problem> {
    for _ in 1..TRIES {
        if let Ok(share) = room.take(message.len()).await {
            return Ok(message.paid(share));
        }
    }
    message.counted(room).await
}
