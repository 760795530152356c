//! Client of the API, which repeats requests that the server cannot take now.

use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::telemetry;
use tokio::time::{Instant, sleep};

/// Timeout of a request. A server answers within 20 s.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a request is repeated if the server names none.
const PAUSE: Duration = Duration::from_secs(1);

/// Client of an API.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
}

/// Final response to a request.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// Problem of a request or of a booking.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    r#type: String,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
}

/// Error of a value of a request.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FieldError {
    pub(super) pointer: String,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(kind: &str, detail: impl Into<String>) -> Self {
        Self {
            r#type: kind.to_owned(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// Returns a problem of the same type.
    pub(super) fn with_detail(&self, detail: &str) -> Self {
        Self::new(&self.r#type, detail)
    }

    /// Returns the last part of the problem's `type`.
    pub(super) fn kind(&self) -> &str {
        self.r#type.rsplit('/').next().unwrap_or_default()
    }
}

/// Time for which requests are repeated while no row is settled.
pub(super) struct Patience {
    max: Duration,
    /// Time of the first failure since a row was settled.
    failing_since: Option<Instant>,
    bar: ProgressBar,
}

impl Patience {
    pub(super) fn new(max: Duration, bar: ProgressBar) -> Self {
        Self {
            max,
            failing_since: None,
            bar,
        }
    }

    /// Notes that a row was settled, after which the whole time is available again.
    pub(super) fn restore(&mut self) {
        if self.failing_since.take().is_some() {
            self.bar.set_message("");
        }
    }

    /// Waits before a request is repeated.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the pause would end too late.
    pub(super) async fn wait(&mut self, pause: Option<Duration>, why: &str) -> anyhow::Result<()> {
        let pause = pause.unwrap_or(PAUSE);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() + pause > self.max {
            bail!("gave up after {} s: {why}", since.elapsed().as_secs());
        }
        self.bar.set_message(format!("retrying: {why}"));
        sleep(pause).await;
        Ok(())
    }
}

impl Client {
    pub(super) fn new(url: &str, api_key: Option<&str>) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .context("the API key has characters that a header can't have")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let url = url.to_owned();
        Ok(Self { http, url })
    }

    /// Checks that a server answers at the URL. Otherwise a wrong URL would be noticed late.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let answer = self.http.get(format!("{}/health/live", self.url)).send();
        answer
            .await
            .with_context(|| format!("no answer from {}", self.url))?;
        Ok(())
    }

    /// Sends a request, and repeats it for as long as the server cannot take it.
    ///
    /// It must be safe to repeat: a request whose answer is lost may have been done.
    ///
    /// # Errors
    ///
    /// Fails if patience ends, or if the API key is refused.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: &mut Patience,
    ) -> anyhow::Result<Reply> {
        loop {
            let request = self.http.post(format!("{}{path}", self.url)).json(body);
            let (pause, why) = match request.send().await {
                Ok(response) if is_temporary(response.status()) => {
                    (retry_after(&response), describe(response).await)
                }
                Ok(response) => match read(response).await {
                    Ok(reply) => return self.authorized(reply),
                    Err(error) => (None, telemetry::chain(&error)),
                },
                Err(error) => (None, telemetry::chain(&error)),
            };
            patience.wait(pause, &why).await?;
        }
    }

    fn authorized(&self, reply: Reply) -> anyhow::Result<Reply> {
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&reply.status) {
            bail!("{} refuses: {}", self.url, reply.describe());
        }
        Ok(reply)
    }
}

impl Reply {
    /// Returns the problem of a request that was refused.
    pub(super) fn problem(&self) -> Problem {
        serde_json::from_value(self.body.clone()).unwrap_or_default()
    }

    /// Describes a request that was refused.
    pub(super) fn describe(&self) -> String {
        let Problem { detail, .. } = self.problem();
        format!("{} {detail}", self.status).trim_end().to_owned()
    }
}

/// Returns whether a request with this response can be repeated. Proxies answer with 502 and 504.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

async fn read(response: Response) -> reqwest::Result<Reply> {
    let status = response.status();
    let body = response.bytes().await?;
    Ok(Reply {
        status,
        // Of a proxy, for example.
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

async fn describe(response: Response) -> String {
    let status = response.status();
    match read(response).await {
        Ok(reply) => reply.describe(),
        Err(_) => status.to_string(),
    }
}
