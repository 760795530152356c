//! Tests of the metrics that the alerts and the Grafana dashboard use, and of the worker's metrics.

mod system;

use std::{collections::BTreeSet, fs, path::Path, process::Stdio};

use serde_json::Value;
use testing::{DataDir, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::system::{Up, up};

/// Returns the names of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("ticketing_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_figure_of_the_alerts_and_of_grafana_exists() {
    let data = DataDir::new("monitoring");
    let up = Up::start(&data.0).await;
    let api = &up.api;
    // A booking and a refusal, so that metrics with labels exist.
    let client = reqwest::Client::new();
    for (path, body) in [
        (
            "shows",
            r#"{"name":"Morning Show","startTime":"2025-12-10 10:00:00","seats":1}"#,
        ),
        (
            "bookings",
            r#"{"showId":1,"userName":"Alice","numberOfSeats":1}"#,
        ),
        (
            "bookings",
            r#"{"showId":1,"userName":"Bob","numberOfSeats":1}"#,
        ),
    ] {
        let request = client.post(format!("{api}/{path}")).body(body);
        request
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap();
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring");
    for file in ["alerts.yml", "grafana/ticketing.json"] {
        let wanted = named(&fs::read_to_string(directory.join(file)).unwrap());
        assert!(wanted.len() > 5, "{file}: {wanted:?}");
        let mut missing = wanted.clone();
        eventually(file, async || {
            let figures = reqwest::get(format!("{}/metrics", up.admin)).await.unwrap();
            let told = named(&figures.text().await.unwrap());
            missing = &wanted - &told;
            missing.is_empty()
        })
        .await;
    }
}

/// `ticketing up` is one process with one registry, but the worker's listener must not report the
/// metrics of the API.
#[tokio::test]
async fn the_worker_of_up_reports_no_metric_of_the_api() {
    let data = DataDir::new("worker-metrics");
    let mut command = up(&data.0);
    command
        .args(["--log-format", "json"])
        .stderr(Stdio::piped());
    let mut up = Up::of(command).await;
    let mut log = BufReader::new(up.process.stderr.take().unwrap()).lines();
    let worker = loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .expect("the address of the worker's metrics");
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(url) = fields["metrics"].as_str() {
            break url.to_owned();
        }
    };
    let get = async |url: &str| reqwest::get(url).await.unwrap().text().await.unwrap();
    get(&format!("{}/shows", up.api)).await;
    let all = named(&get(&format!("{}/metrics", up.admin)).await);
    let of_worker = named(&get(&worker).await);
    let begins = |beginning: &'static str| move |name: &&String| name.starts_with(beginning);
    assert!(
        all.iter().any(|name| begins("ticketing_http_")(&name)),
        "{all:?}"
    );
    assert!(
        all.iter().any(|name| begins("ticketing_jobs_")(&name)),
        "{all:?}"
    );
    assert!(
        of_worker
            .iter()
            .any(|name| begins("ticketing_jobs_")(&name)),
        "{of_worker:?}"
    );
    for of_api in ["ticketing_http_", "ticketing_refusals_", "ticketing_batch_"] {
        assert_eq!(of_worker.iter().find(begins(of_api)), None);
    }
}
