//! One tail of a session.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

use super::{
    asked::Id,
    frame::{self, Found, Frame},
};
use crate::gateway::web::{problem::Problem, tail::Tail};

/// The cursor of the last message that was given out.
pub(super) type Told = Arc<Mutex<String>>;

/// Sends what the tail finds until it fails, or nobody takes it.
pub(super) async fn run(id: Id, mut tail: Tail, out: Sender<Frame>, told: Told) {
    if let Some(gap) = tail.take_recreated() {
        let message = Found::with_gap(gap).message(&id, tail.cursor());
        if out.send(Frame::Text(message.into())).await.is_err() {
            return;
        }
    }
    while !tail.is_over() {
        let ended = step(&id, &mut tail, &out, &told).await;
        if let Err(Some(problem)) = &ended {
            let problem = problem.with_more("cursor", tail.cursor().to_string());
            drop(out.send(frame::problem(Some(&id), &problem)).await);
        }
        if ended.is_err() {
            return;
        }
    }
}

/// One read and its message. Fails with a problem, or without one when nobody takes messages.
async fn step(
    id: &Id,
    tail: &mut Tail,
    out: &Sender<Frame>,
    told: &Told,
) -> Result<(), Option<Problem>> {
    let before = tail.cursor().clone();
    let mut found = Found::default();
    let read = tail.step(&mut found).await;
    // What came before an error is in the cursor: it is sent all the same.
    if *tail.cursor() != before {
        let message = found.message(id, tail.cursor());
        let message = match frame::counted(message, tail.room()).await {
            Ok(message) => message,
            Err(problem) => {
                tail.go_back(before);
                return Err(Some(problem));
            }
        };
        let permit = out.reserve().await.map_err(|_| None)?;
        *told.lock() = tail.cursor().to_string();
        permit.send(message);
    }
    read.map_err(Some)
}
