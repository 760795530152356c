//! Neither the log nor standard output may block the program.

mod system;

use std::{
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write},
    process::Stdio,
    thread,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use testing::{DataDir, eventually};
use tokio::sync::oneshot;

use crate::system::{Up, up};

/// Returns the number of log lines dropped.
async fn dropped(up: &Up) -> u64 {
    let figures = reqwest::get(format!("{}/metrics", up.admin)).await.unwrap();
    let figures = figures.text().await.unwrap();
    let line = figures
        .lines()
        .find_map(|line| line.strip_prefix("ticketing_log_lines_dropped_total "));
    line.expect("the metric").parse().unwrap()
}

/// Starts `up` with a log that is not read, and makes it log until it drops lines.
async fn start_unread(data: &DataDir) -> (Up, PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let mut command = up(&data.0);
    command
        .args(["--log", "info,sqlx=trace,api=trace", "--log-format", "json"])
        .stderr(writer);
    let up = Up::of(command).await;
    let client = reqwest::Client::new();
    eventually("lines are dropped", async || {
        for _ in 0..100 {
            let shows = client.get(format!("{}/shows", up.api)).send().await;
            assert_eq!(shows.unwrap().status(), 200);
        }
        dropped(&up).await > 0
    })
    .await;
    (up, reader)
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_the_end() {
    let data = DataDir::new("unread");
    let (mut up, _reader) = start_unread(&data).await;
    let live = reqwest::get(format!("{}/health/live", up.api)).await;
    assert_eq!(live.unwrap().status(), 200);
    up.signal(Signal::SIGTERM);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_log_that_is_read_again_tells_how_many_lines_are_missing_and_goes_on_to_its_end() {
    let data = DataDir::new("read-again");
    let (mut up, reader) = start_unread(&data).await;
    let known = dropped(&up).await;
    let (told, is_reported) = oneshot::channel();
    let reading = thread::spawn(move || {
        let mut lost = 0;
        let mut told = Some(told);
        let mut latest = Value::Null;
        for line in BufReader::new(reader).lines() {
            latest = serde_json::from_str(&line.unwrap()).expect("a complete line");
            let message = latest["message"].as_str().unwrap_or_default();
            if message.starts_with("log lines were dropped") {
                lost += latest["lines"].as_u64().unwrap();
                told.take().map(|told| told.send(()));
            }
        }
        (lost, latest)
    });
    is_reported.await.expect("the dropped lines are reported");
    up.signal(Signal::SIGTERM);
    assert_eq!(up.process.wait().await.unwrap().code(), Some(0));
    let (lost, latest) = reading.join().unwrap();
    assert!(lost >= known, "{lost} of {known}");
    let stopped = Value::from("api stopped");
    assert!(
        [stopped, "worker stopped".into()].contains(&latest["message"]),
        "{latest}"
    );
}

/// Returns a pipe whose buffer is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    thread::spawn(move || filling.write_all(&vec![b'x'; 1 << 20]));
    (reader, writer)
}

#[tokio::test]
async fn a_standard_output_that_takes_nothing_stops_nothing() {
    let data = DataDir::new("stdout");
    let (_reader, full) = full_pipe();
    let mut command = up(&data.0);
    command
        .args(["--log-format", "json"])
        .stdout(full)
        .stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut log = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        process.stderr.take().unwrap(),
    ));
    let address = loop {
        let line = log.next_line().await.unwrap().expect("it starts");
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    let live = reqwest::get(format!("http://{address}/health/live")).await;
    assert_eq!(live.unwrap().status(), 200);
    let id = i32::try_from(process.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGTERM).unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(0));
}
