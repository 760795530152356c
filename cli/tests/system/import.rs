//! Runs of `ticketing import` against a running system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use testing::{DataDir, TestDatabase, count};
use tokio::process::Command;

use super::{Up, ticketing};

/// A running system, a database to look into, and a directory for files.
pub(crate) struct Importing {
    pub(crate) db: TestDatabase,
    pub(crate) up: Up,
    pub(crate) dir: DataDir,
}

/// Output of an import.
pub(crate) struct Imported {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Importing {
    pub(crate) async fn new(name: &str, args: &[&str]) -> Self {
        let (db, dir) = (TestDatabase::new().await, DataDir::new(name));
        fs::create_dir(&dir.0).unwrap();
        let up = Up::start_in(&dir.0, args, &[("DATABASE_URL", &db.url)]).await;
        Self { db, up, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// Writes a file with these lines after the usual header.
    pub(crate) fn file(&self, rows: &[String]) -> PathBuf {
        let path = self.path("bookings.csv");
        let text = format!("showId,userName,numberOfSeats\n{}\n", rows.join("\n"));
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self, file: &Path, args: &[&str]) -> Command {
        let mut command = ticketing();
        command.arg("import").arg(file);
        command.args(["--url", &self.up.api]).args(args);
        command
    }

    pub(crate) async fn import(&self, file: &Path, args: &[&str]) -> Imported {
        run(self.command(file, args)).await
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        count(&self.db.pool, sql).await
    }
}

impl Imported {
    /// Returns the number in this line of the summary.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let mut lines = self.stdout.lines();
        let line = lines.find_map(|line| line.trim().strip_prefix(name));
        let Some(line) = line else {
            panic!("{}{}", self.stdout, self.stderr);
        };
        line.trim().parse().unwrap()
    }

    /// Asserts the exit code and the numbers of booked, already booked, confirmed and refused rows.
    pub(crate) fn assert(&self, code: i32, numbers: [u64; 4]) {
        let names = ["booked", "already there", "confirmed", "refused"];
        let found = names.map(|name| self.number(name));
        let text = format!("{}{}", self.stdout, self.stderr);
        assert_eq!((self.code, found), (Some(code), numbers), "{text}");
    }
}

/// Runs an import to its end.
pub(crate) async fn run(mut command: Command) -> Imported {
    let output = command.output().await.unwrap();
    Imported {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
