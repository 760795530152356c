//! Requests in log lines and traces.
//!
//! In a trace, a request is a span. A span takes 1.5 µs of each request, although few requests log
//! anything. So without traces a request is kept beside its future, and is formatted when a line is
//! logged, in the same way.

use std::fmt;

use axum::http::{HeaderValue, Method, Uri};
use serde_json::json;
use tokio::task_local;
use tracing::{Event, Instrument, Span, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{LogFormat, traces};

task_local! {
    static REQUEST: LoggedRequest;
}

/// Members of a request that its log lines and its span have.
#[derive(Debug, Clone)]
pub(crate) struct LoggedRequest {
    /// Id of the request.
    pub(crate) id: HeaderValue,
    /// Its method.
    pub(crate) method: Method,
    /// Its target; only the path is logged.
    pub(crate) uri: Uri,
}

impl LoggedRequest {
    /// Runs the future as part of this request.
    ///
    /// With traces, its span continues the trace of `traceparent`, if there is one.
    pub(crate) fn scope<F: Future>(
        self,
        traceparent: Option<&HeaderValue>,
        future: F,
    ) -> impl Future<Output = F::Output> {
        let span = if traces::are_made() {
            self.span(traceparent)
        } else {
            Span::none()
        };
        REQUEST.scope(self, future.instrument(span))
    }

    fn span(&self, traceparent: Option<&HeaderValue>) -> Span {
        let span = tracing::info_span!(
            "request",
            id = self.id(),
            method = %self.method,
            path = self.uri.path(),
        );
        traces::continue_with(&span, traceparent.and_then(|value| value.to_str().ok()));
        span
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Returns a line with this request, as the format would write its span.
    fn added_to(&self, line: &str, format: LogFormat) -> String {
        let Self { id, method, uri } = self;
        let (line, path) = (line.trim_end(), uri.path());
        match format {
            LogFormat::Human => {
                format!("{line} request{{id={id:?} method={method} path={path:?}}}\n")
            }
            LogFormat::Json => {
                let members = line.strip_suffix('}').unwrap_or(line);
                let method = method.as_str();
                let span =
                    json!({"id": self.id(), "method": method, "path": path, "name": "request"});
                format!("{members},\"span\":{span}}}\n")
            }
        }
    }
}

/// A log format that adds the request to the lines of a request without a span.
pub(super) struct WithRequest<F> {
    pub(super) inner: F,
    pub(super) format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let request = REQUEST.try_with(LoggedRequest::clone).ok();
        let Some(request) = request.filter(|_| !traces::are_made()) else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner
            .format_event(context, Writer::new(&mut line), event)?;
        if line.is_empty() {
            return Ok(());
        }
        writer.write_str(&request.added_to(&line, self.format))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn request() -> LoggedRequest {
        LoggedRequest {
            id: HeaderValue::from_static("r-\"1\""),
            method: Method::POST,
            uri: Uri::from_static("/bookings?token=secret"),
        }
    }

    #[test]
    fn a_line_for_machines_stays_json() {
        let line = request().added_to("{\"message\":\"failed\"}\n", LogFormat::Json);
        let span =
            json!({"id": "r-\"1\"", "method": "POST", "path": "/bookings", "name": "request"});
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed, json!({"message": "failed", "span": span}));
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn a_line_for_people_stays_one_line() {
        let line = request().added_to("WARN failed\n", LogFormat::Human);
        let request = r#"request{id="r-\"1\"" method=POST path="/bookings"}"#;
        assert_eq!(line, format!("WARN failed {request}\n"));
    }
}
