//! Traces: what became of a request, from its arrival to the job that runs minutes later in another process.
//!
//! They are made where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them, and cost nothing where it does not. The other
//! variables of OpenTelemetry's specification work, too, such as `OTEL_TRACES_SAMPLER`.

use std::{collections::HashMap, env, sync::OnceLock};

use anyhow::Context as _;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Where W3C puts a trace, in headers and in a job's metadata.
pub const TRACEPARENT: &str = "traceparent";

/// The longest that is taken over, in bytes; W3C's has 55.
const MAX_BYTES: usize = 64;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Starts to send traces to the collector that the environment names; none when it names none.
pub(super) fn start(service: &'static str) -> anyhow::Result<Option<SdkTracer>> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_set("OTEL_EXPORTER_OTLP_ENDPOINT") && !is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .context("cannot send traces to OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let resource = Resource::builder();
    let resource = if is_set("OTEL_SERVICE_NAME") {
        resource
    } else {
        resource.with_service_name(service)
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("ticketing");
    PROVIDER
        .set(provider)
        .ok()
        .context("traces are started once")?;
    Ok(Some(tracer))
}

/// Sends what is still here.
pub(super) fn stop() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "not all traces could be sent");
    }
}

/// Whether traces are made.
#[must_use]
pub fn are_made() -> bool {
    PROVIDER.get().is_some()
}

/// Makes a span that was not entered yet a part of the trace that somebody else began. What is none is ignored.
pub fn continue_with(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent.filter(|text| are_made() && text.len() <= MAX_BYTES) else {
        return;
    };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Fails for a span that nobody wants.
        span.set_parent(context).ok();
    }
}

/// The current span's place in its trace, for those who continue it; none when nobody records it.
#[must_use]
pub fn traceparent() -> Option<String> {
    if !are_made() {
        return None;
    }
    let context: Context = Span::current().context();
    if !context.span().span_context().is_sampled() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}
