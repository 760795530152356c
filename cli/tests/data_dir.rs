//! `ticketing up --data-dir`: which data directories it accepts and which it rejects.

mod system;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use serde_json::json;
use testing::DataDir;
use tokio::process::Command;

use crate::system::{Up, up};

/// Neither shells nor URLs must interpret the directory's name.
///
/// Environment variables that are meant for other servers must have no effect.
#[tokio::test]
async fn its_name_can_have_any_character_and_the_environment_can_name_other_servers() {
    let dir = DataDir::new("odd");
    fs::create_dir(&dir.0).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o777)).unwrap();
    let data = dir.0.join(r#"a b&c=d%20$HOME`id`"e"'f'\#?+;(ü"#);
    let environment = [
        ("PGSSLMODE", "require"),
        ("PGHOST", "nowhere.invalid"),
        ("PGPORT", "7777"),
        ("PGUSER", "nobody"),
        ("PGDATABASE", "nowhere"),
        ("PGDATA", "/nowhere"),
        ("PGPASSFILE", "/nowhere"),
        ("PGSSLROOTCERT", "/nowhere"),
    ];
    let up = Up::start_in(&data, &[], &environment).await;
    assert_eq!(up.shows().await, json!([]));
    assert!(data.join("PG_VERSION").exists());
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "no other entry");

    let psql = Command::new("psql")
        .args([&*up.database, "-Atc", "SELECT count(*) FROM shows"])
        .envs(environment)
        .output()
        .await;
    // `psql` may not be in PATH.
    if let Ok(output) = psql {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    }
}

async fn refusal(data_dir: &Path, programs: Option<&Path>) -> String {
    let mut command = up(data_dir);
    if let Some(programs) = programs {
        command.env("PG_BIN_DIR", programs);
    }
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn unfinished(data_dir: &Path) -> PathBuf {
    let mut path = data_dir.as_os_str().to_owned();
    path.push(".unfinished");
    path.into()
}

#[tokio::test]
async fn a_directory_of_another_user_is_refused_before_anything_is_made() {
    let dir = DataDir::new("others");
    let others = if nix::unistd::geteuid().is_root() {
        fs::create_dir_all(dir.0.join("base")).unwrap();
        chown(&dir.0, Some(1), None).unwrap();
        dir.0.clone()
    } else {
        PathBuf::from("/etc")
    };
    let text = refusal(&others, None).await;
    assert!(text.contains("belongs to the user "), "{text}");
    assert!(!unfinished(&others).exists());
}

#[tokio::test]
async fn a_file_is_no_data_directory() {
    let dir = DataDir::new("file");
    fs::write(&dir.0, "").unwrap();
    let text = refusal(&dir.0, None).await;
    fs::remove_file(&dir.0).unwrap();
    assert!(text.contains("is not a directory"), "{text}");
}

#[tokio::test]
async fn nothing_is_left_behind_when_it_cannot_be_made() {
    let dir = DataDir::new("half");
    let programs = dir.0.join("programs");
    fs::create_dir_all(&programs).unwrap();
    for program in ["initdb", "postgres"] {
        let program = programs.join(program);
        fs::write(&program, "#!/bin/sh\necho no luck >&2\nexit 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let data = dir.0.join("data");
    let text = refusal(&data, Some(&programs)).await;
    assert!(text.contains("no luck"), "{text}");
    assert!(!data.exists() && !unfinished(&data).exists());
}
