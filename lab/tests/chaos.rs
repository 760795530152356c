//! A short run of `ticketing-lab chaos`, which kills processes and the database while clients book.

use std::process::Command;

use serde_json::Value;

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed() {
    testing::build_programs();
    // With these seeds, every kind of fault happens.
    let output = Command::new(env!("CARGO_BIN_EXE_ticketing-lab"))
        .args(["chaos", "--rounds", "2", "--seed", "15"])
        .args(["--load-seconds", "8", "--json"])
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults = summary["faults"].as_object().unwrap();
    assert_eq!(faults.len(), 7, "{summary}");
    assert!(summary["acknowledged"].as_u64().unwrap() > 100, "{summary}");
}
