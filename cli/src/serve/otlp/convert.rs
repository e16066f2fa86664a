//! A span of the broker as OTLP has it, with the attribute names of OpenTelemetry's conventions.

use std::time::Duration;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span as Wire, Status, span::SpanKind, status::StatusCode,
    },
};
use riverrun_broker::traces::{Door, Ended, Span};
use riverrun_proto::grpc::v1::ErrorCode;

/// Flags of a span that is told of: it is sampled, and whether its parent is elsewhere is known.
const SAMPLED: u32 = 0x101;
/// Its parent is elsewhere.
const REMOTE: u32 = 0x200;
/// What the services of gRPC are called before their name.
const PACKAGE: &str = "riverrun.v1.";
/// Statuses of gRPC that are a server's fault, as the conventions have it: unknown, deadline exceeded, unimplemented,
/// internal, unavailable, data loss.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// Who sends the spans.
#[derive(Debug)]
pub(super) struct Identity {
    resource: Resource,
}

impl Default for Identity {
    fn default() -> Identity {
        let attributes = vec![
            text("service.name", "riverrun"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            number("process.pid", i64::from(std::process::id())),
        ];
        Identity { resource: Resource { attributes, ..Resource::default() } }
    }
}

impl Identity {
    /// Spans as one request has them.
    pub(super) fn resource_spans(&self, spans: Vec<Span>) -> ResourceSpans {
        let scope =
            InstrumentationScope { name: "riverrun".into(), ..InstrumentationScope::default() };
        let spans = spans.into_iter().map(wire).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }
    }
}

fn wire(span: Span) -> Wire {
    let attributes = attributes(&span);
    let (name, kind) = match span.door {
        Door::Grpc => (format!("{PACKAGE}{}", span.name), SpanKind::Server),
        Door::Web => (span.name.into_owned(), SpanKind::Server),
    };
    Wire {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: SAMPLED | if span.parent.is_some() { REMOTE } else { 0 },
        name,
        kind: kind as i32,
        start_time_unix_nano: nanos(span.began),
        end_time_unix_nano: nanos(span.began + span.took),
        attributes,
        status: failure(span.ended)
            .map(|message| Status { code: StatusCode::Error as i32, message }),
        ..Wire::default()
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let mut attributes = vec![text("messaging.system", "riverrun")];
    match (span.door, span.name.split_once(['/', ' '])) {
        (Door::Grpc, Some((service, method))) => attributes.extend([
            text("rpc.system", "grpc"),
            text("rpc.service", &format!("{PACKAGE}{service}")),
            text("rpc.method", method),
        ]),
        (Door::Web, Some((method, route))) => {
            attributes.extend([text("http.request.method", method), text("http.route", route)]);
        }
        (Door::Grpc | Door::Web, None) => {}
    }
    if let Some(topic) = &span.topic {
        attributes.push(text("messaging.destination.name", topic));
    }
    if span.partitions > 0 {
        attributes.push(number("riverrun.partitions", i64::from(span.partitions)));
    }
    attributes.push(number("riverrun.bytes", i64::try_from(span.bytes).unwrap_or(i64::MAX)));
    match span.ended {
        Ended::Grpc(code) => attributes.push(number("rpc.grpc.status_code", i64::from(code))),
        Ended::Http(status) => {
            attributes.push(number("http.response.status_code", i64::from(status)));
        }
        Ended::Refused(code) => attributes.push(text("error.type", name_of(code))),
        Ended::Cut => attributes.push(text("error.type", "cut")),
    }
    attributes
}

/// Why a span counts as failed; `None` when it does not.
fn failure(ended: Ended) -> Option<String> {
    match ended {
        Ended::Grpc(code) => FAULTS.contains(&code).then(|| format!("status {code}")),
        Ended::Http(status) => (status >= 500).then(|| format!("status {status}")),
        Ended::Refused(code) => Some(name_of(code).to_owned()),
        Ended::Cut => None,
    }
}

fn name_of(code: i32) -> &'static str {
    ErrorCode::try_from(code).map_or("unknown", |code| code.as_str_name())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
