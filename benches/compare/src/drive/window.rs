//! A bounded number of calls in flight, begun in order.

use std::{collections::VecDeque, future::poll_fn, task::Poll};

use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Calls that were begun and not waited for yet, oldest first.
pub(crate) struct Window<T> {
    calls: VecDeque<JoinHandle<Result<T>>>,
    calls_max: usize,
}

impl<T: Send + 'static> Window<T> {
    /// Holds at most so many.
    pub(crate) fn new(calls_max: usize) -> Window<T> {
        Window { calls: VecDeque::new(), calls_max }
    }

    /// Begins a call, after the oldest has ended when there is no room. Gives what that one gave.
    pub(crate) async fn begin(
        &mut self,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let ended = if self.calls.len() < self.calls_max { None } else { self.next().await? };
        // Polled once here, so that calls stand in line at the connection in the order they were begun; then each goes on by itself.
        // Unconstrained, because a task whose turn is used up is not let into the line.
        let mut call = Box::pin(tokio::task::unconstrained(call));
        let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        self.calls.push_back(match first {
            Poll::Ready(done) => tokio::spawn(std::future::ready(done)),
            Poll::Pending => tokio::spawn(call),
        });
        Ok(ended)
    }

    /// Waits for the oldest; none when there is none.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        match self.calls.pop_front() {
            Some(call) => call.await.map_err(Error::peer)?.map(Some),
            None => Ok(None),
        }
    }

    /// Waits for all.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
