//! Log output of a process at its end, and when it panics.
//!
//! The processes are this test binary, started again.

use std::{
    env,
    io::{self, Write},
    panic::catch_unwind,
    process::{Command, Stdio},
    thread,
};

use clap::Parser;
use shared::telemetry::{self, LogArgs};

/// Environment variable that names what the process is to do.
const DO: &str = "TEST_LOGS_DO";

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    log: LogArgs,
}

/// The process that the other tests start. It does nothing by itself.
#[test]
fn process() {
    let Ok(what) = env::var(DO) else {
        return;
    };
    let telemetry = telemetry::init(&Args::parse_from(["test"]).log, "test").unwrap();
    match &*what {
        "log" => {
            for number in 0..1_000 {
                tracing::info!("line {number}");
            }
            drop(telemetry);
        }
        "fail" => {
            drop(telemetry);
            let error = anyhow::anyhow!("the cause").context("what was being done");
            let code = telemetry::conclude(Err(error));
            assert_eq!(code, std::process::ExitCode::FAILURE);
        }
        "panic" => {
            // One after the other, so that a panic that blocks keeps the process from ending.
            for _ in 0..100 {
                catch_unwind(|| panic!("{}", "a long message ".repeat(100))).unwrap_err();
            }
            tracing::info!("alive");
            drop(telemetry);
        }
        _ => panic!("unknown action {what}"),
    }
    // As at the end of a program, and without the output of the test harness.
    std::process::exit(0);
}

fn process_that(what: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "process", "--nocapture"])
        .env(DO, what)
        .env("RUST_BACKTRACE", "1")
        .stdout(Stdio::null());
    command
}

fn log_of(what: &str) -> String {
    let output = process_that(what).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let text = log_of("log");
    for number in 0..1_000 {
        assert!(text.contains(&format!("line {number}\n")), "{number}");
    }
}

#[test]
fn an_error_of_a_program_is_one_line_without_a_backtrace() {
    assert_eq!(log_of("fail"), "Error: what was being done: the cause\n");
}

#[test]
fn panics_are_in_the_log_with_their_place_and_backtrace() {
    let text = log_of("panic");
    let place = "panicked at shared/tests/logs.rs:";
    assert_eq!(text.matches(place).count(), 100, "{text}");
    assert!(text.contains("logs::process"), "the backtrace: {text}");
    assert!(text.ends_with("alive\n"), "{text}");
}

#[test]
fn a_panic_does_not_wait_for_a_reader_of_the_log() {
    let (_reader, writer) = io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    thread::spawn(move || filling.write_all(&vec![b'x'; 1 << 20]));
    let mut process = process_that("panic").stderr(writer).spawn().unwrap();
    assert!(process.wait().unwrap().success());
}
