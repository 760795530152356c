//! Traces of requests, from their arrival to the job that runs minutes later in another process.
//!
//! They are recorded if `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them, and cost nothing
//! otherwise. The other variables of OpenTelemetry's specification work too, such as
//! `OTEL_TRACES_SAMPLER`.

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

/// Name of the W3C trace context, in headers and in a job's metadata.
pub const TRACEPARENT: &str = "traceparent";

/// Maximum length of an accepted trace context, in bytes. Those of W3C have 55.
const MAX_BYTES: usize = 64;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Starts to send traces to the collector that the environment names; none if it names none.
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

/// Sends the traces that are buffered.
pub(super) fn stop() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "not all traces could be sent");
    }
}

/// Whether traces are recorded.
#[must_use]
pub fn are_made() -> bool {
    PROVIDER.get().is_some()
}

/// Adds a span that was not entered yet to the trace of `traceparent`. An invalid value is ignored.
pub fn continue_with(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent.filter(|text| are_made() && text.len() <= MAX_BYTES) else {
        return;
    };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Fails for a span that is not recorded.
        span.set_parent(context).ok();
    }
}

/// Returns the trace context of the current span, for its continuation; none if it is not recorded.
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
