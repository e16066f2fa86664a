//! Sends the spans of calls to a collector, by OTLP over gRPC.
//!
//! ```text
//! calls -> bounded queue -> a thread of its own: up to 512 spans a request -> collector
//! ```
//!
//! Nobody who serves ever waits for it. A collector that does not answer within 10 s, refuses, or is not there costs the spans
//! that were sent to it, and while it is tried again after a pause, those that find no room: all are counted as lost
//! (`riverrun_trace_spans_total`). Nothing is sent twice.

mod convert;
#[cfg(test)]
mod tests;

use std::{sync::mpsc, thread, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_client::TraceServiceClient,
    },
    trace::v1::ResourceSpans,
};
use riverrun_broker::{
    clock::Clock,
    config::TracesConfig,
    traces::{Span, Spans, Traces},
};
use tokio::{runtime::Builder, time::sleep};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use self::convert::Identity;
use crate::failure::Failure;

/// Spans of one request.
const BATCH_MAX: usize = 512;
/// Time in which spans gather for a request.
const GATHER: Duration = Duration::from_millis(200);
/// Time that the collector has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time that it has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after it did not.
const PAUSE: Duration = Duration::from_secs(1);
/// Time that the last spans have to go when the broker ends.
const GRACE: Duration = Duration::from_secs(2);

/// The thread that sends.
#[derive(Debug)]
pub(crate) struct Exporter {
    traces: Traces,
    /// Hears when the last span is gone.
    ended: mpsc::Receiver<()>,
}

impl Exporter {
    /// Begins to send spans as the settings say.
    ///
    /// # Errors
    /// When the endpoint is no URL, or the system gives no thread.
    pub(crate) fn start(settings: &TracesConfig) -> Result<Exporter, Failure> {
        let refused = |error| Failure::usage(format!("`traces.otlp_endpoint`: {error}"));
        let endpoint = Endpoint::from_shared(settings.otlp_endpoint.clone())
            .map_err(|error| refused(error.to_string()))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        let no_thread = |error| Failure::other(format!("cannot start a thread: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let (traces, spans) = Traces::exported(settings.sample_millionths, Clock::real());
        let (end, ended) = mpsc::channel();
        let sending = async move {
            let client = TraceServiceClient::new(endpoint.connect_lazy());
            Sender { client, spans, identity: Identity::default(), is_refused: false }.run().await;
        };
        let thread = thread::Builder::new().name("traces".into());
        let run = move || {
            runtime.block_on(sending);
            drop(end);
        };
        thread.spawn(run).map_err(no_thread)?;
        Ok(Exporter { traces, ended })
    }

    /// What a broker begins spans with.
    pub(crate) fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// Lets the last spans go, for a while, once no broker runs.
    pub(crate) fn end(self) {
        let Exporter { traces, ended } = self;
        drop(traces);
        // Nobody sends: it ends when the thread does.
        if ended.recv_timeout(GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("traces: the collector did not take the last spans in time");
        }
    }
}

/// What the thread works with.
struct Sender {
    client: TraceServiceClient<Channel>,
    spans: Spans,
    identity: Identity,
    /// The last request was not taken.
    is_refused: bool,
}

impl Sender {
    /// Sends until there will be no span any more.
    async fn run(mut self) {
        while let Some(spans) = self.spans.next(BATCH_MAX).await {
            let is_full = spans.len() == BATCH_MAX;
            self.send(spans).await;
            if self.is_refused {
                sleep(PAUSE).await;
            } else if !is_full {
                sleep(GATHER).await;
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let resource_spans: Vec<ResourceSpans> = vec![self.identity.resource_spans(spans)];
        let told = self.client.export(ExportTraceServiceRequest { resource_spans }).await;
        let lost = match told {
            Ok(response) => self.taken(response.into_inner(), count),
            Err(status) => self.refused(&status, count),
        };
        self.spans.meter.lost.add(lost);
        self.spans.meter.exported.add(count - lost);
    }

    /// A collector may take a part of what it is sent. Returns what it did not.
    fn taken(&mut self, response: ExportTraceServiceResponse, count: u64) -> u64 {
        if std::mem::take(&mut self.is_refused) {
            tracing::info!("traces: the collector takes spans again");
        }
        let refused = response.partial_success.map_or(0, |part| part.rejected_spans);
        u64::try_from(refused).unwrap_or(0).min(count)
    }

    fn refused(&mut self, status: &Status, count: u64) -> u64 {
        if !std::mem::replace(&mut self.is_refused, true) {
            let (code, message) = (status.code(), status.message());
            tracing::warn!(?code, message, "traces: the collector takes no spans; they are lost");
        }
        count
    }
}
