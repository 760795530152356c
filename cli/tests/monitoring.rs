//! What Prometheus and Grafana are set up to look at.

mod system;

use std::{collections::BTreeSet, fs, path::Path};

use shared::testing::{DataDir, eventually};

use crate::system::Up;

/// The names of our figures in a text.
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
    // A refusal and a booking, so that what has labels is there.
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
