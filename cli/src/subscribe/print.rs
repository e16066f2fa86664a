//! Records to standard output, each acknowledged only after it was written out.

use std::{io::IsTerminal, time::Instant};

use futures_util::FutureExt;
use riverrun_client::{Client, Job, Subscriber};

use super::{
    SubscribeArgs,
    end::{End, INTERVAL},
};
use crate::{
    clock,
    failure::Stop,
    output::Output,
    printer::{Form, Printer},
    signals::{end_at_second, interrupted},
    template::Row,
    units,
};

/// Records buffered at most before they are written out and acknowledged.
const BUFFERED_MAX: usize = 256;

/// Prints until interrupted or the end is reached.
pub(super) async fn run(
    client: &Client,
    subscriber: Subscriber,
    args: SubscribeArgs,
) -> Result<(), Stop> {
    let form = match args.output.output {
        Output::Table => Form::Template(args.format),
        Output::Json => Form::Json,
    };
    let end = End::new(client, &args.subscription, subscriber.session_id());
    let mut writer = Writer {
        subscriber,
        printer: Printer::stdout(form)?,
        buffered: Vec::new(),
        left: args.max.unwrap_or(u64::MAX),
        end: args.no_follow.then_some(end),
        started: clock::instant(),
        record_count: 0,
    };
    end_at_second();
    let written = tokio::select! {
        written = writer.write() => written,
        () = interrupted() => Ok(()),
    };
    // What was taken before an error is still written out and acknowledged.
    let ended = match written {
        Err(Stop::PipeClosed) => Err(Stop::PipeClosed),
        written => written.and(writer.settle()),
    };
    ended.and(writer.close().await)
}

/// Writes records out, then acknowledges them.
struct Writer {
    subscriber: Subscriber,
    printer: Printer,
    /// In the printer's buffer.
    buffered: Vec<Job>,
    /// Records that may still be written.
    left: u64,
    /// With `--no-follow`.
    end: Option<End>,
    started: Instant,
    record_count: u64,
}

impl Writer {
    /// Until the end, an error, or for ever.
    async fn write(&mut self) -> Result<(), Stop> {
        while self.left > 0 {
            let job = match self.subscriber.next().now_or_never() {
                Some(job) => job,
                None => {
                    // Nothing at hand: what came is written out now.
                    self.settle()?;
                    match self.wait().await? {
                        Some(job) => job,
                        None => return Ok(()),
                    }
                }
            };
            let Some(job) = job.transpose()? else { return Ok(()) };
            let is_full = self.printer.push(&Row::of(job.record()));
            self.left -= 1;
            self.record_count += 1;
            self.buffered.push(job);
            if is_full || self.buffered.len() >= BUFFERED_MAX {
                self.settle()?;
            }
        }
        Ok(())
    }

    /// Waits for the next job; `None` when the end is reached before.
    async fn wait(&mut self) -> Result<Option<Option<Result<Job, riverrun_client::Error>>>, Stop> {
        let Some(end) = &mut self.end else { return Ok(Some(self.subscriber.next().await)) };
        loop {
            if end.is_reached().await? {
                return Ok(None);
            }
            if let Ok(job) = tokio::time::timeout(INTERVAL, self.subscriber.next()).await {
                return Ok(Some(job));
            }
        }
    }

    /// Writes out what is buffered, then acknowledges it.
    fn settle(&mut self) -> Result<(), Stop> {
        tokio::task::block_in_place(|| self.printer.flush())?;
        self.buffered.drain(..).for_each(Job::ack);
        Ok(())
    }

    /// Gives back what was not written and waits until the rest is durable.
    async fn close(self) -> Result<(), Stop> {
        let Writer { subscriber, buffered, started, record_count, .. } = self;
        buffered.into_iter().for_each(Job::release);
        subscriber.close().await?;
        if std::io::stderr().is_terminal() {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("acknowledged {} in {seconds:.2} s", units::records(record_count));
        }
        Ok(())
    }
}
