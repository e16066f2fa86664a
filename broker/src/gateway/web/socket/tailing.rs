//! One tail of a session.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::{
    ask::{Codec, Id},
    frame::{Found, Frame, Told},
};
use crate::gateway::web::{
    problem::Problem,
    tail::{Form as _, Tail},
};

/// The cursor of the last message that was given out.
pub(super) type Stand = Arc<Mutex<String>>;

/// Sends what the tail finds until it fails, or nobody takes it.
pub(super) async fn run(
    (id, codec): (Id, Codec),
    mut tail: Tail<Found>,
    out: Sender<Frame>,
    stand: Stand,
) {
    if let Some(gap) = tail.take_recreated() {
        let mut found = Found::new(codec);
        found.add_gap(&gap);
        if out.send(found.message(&id, tail.cursor()).small()).await.is_err() {
            return;
        }
    }
    while !tail.is_over() {
        let ended = step(&id, &mut tail, &out, &stand).await;
        if let Err(Some(problem)) = &ended {
            let problem = problem.with_more("cursor", tail.cursor().to_string());
            drop(out.send(codec.small(Some(&id), Told::Problem(&problem))).await);
        }
        if ended.is_err() {
            return;
        }
    }
}

/// One read and its message. Fails with a problem, or without one when nobody takes messages.
async fn step(
    id: &Id,
    tail: &mut Tail<Found>,
    out: &Sender<Frame>,
    stand: &Stand,
) -> Result<(), Option<Problem>> {
    let before = tail.cursor().clone();
    let (found, read) = tail.step().await;
    // What came before an error is in the cursor: it is sent all the same.
    if *tail.cursor() != before || found.bytes() > 0 {
        let message = found.message(id, tail.cursor());
        let message = match tail.room_for(message.len()).await {
            Ok(share) => message.paid(share),
            Err(problem) => {
                tail.go_back(before);
                return Err(Some(problem));
            }
        };
        let permit = out.reserve().await.map_err(|_| None)?;
        *stand.lock() = tail.cursor().to_string();
        permit.send(message);
    }
    read.map_err(Some)
}
