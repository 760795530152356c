//! A clock that steps, for one program.

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// Number of clocks that this process created, for the names of their files.
static CLOCKS: AtomicU32 = AtomicU32::new(0);

/// A clock for one program, which can be stepped while the program runs.
///
/// Time that is measured, and not read from the clock, is not affected. Needs Debian's package
/// `libfaketime`.
pub struct SteppedClock {
    library: PathBuf,
    offset: PathBuf,
}

impl SteppedClock {
    /// Creates a clock that shows the right time.
    ///
    /// Prints a note and returns none if libfaketime is not installed.
    ///
    /// # Panics
    ///
    /// Panics if libfaketime is not installed although the environment variable `REQUIRE_FAKETIME`
    /// is set.
    #[must_use]
    pub fn find() -> Option<Self> {
        let library = fs::read_dir("/usr/lib")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file());
        let Some(library) = library else {
            assert!(env::var_os("REQUIRE_FAKETIME").is_none(), "no libfaketime");
            eprintln!(
                "SKIPPED: libfaketime is not installed (Debian: apt-get install libfaketime)"
            );
            return None;
        };
        let number = CLOCKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("ticketing-clock-{}-{number}", std::process::id());
        let clock = Self {
            library,
            offset: env::temp_dir().join(name),
        };
        clock.step("+0");
        Some(clock)
    }

    /// Makes the program that this command starts see this clock.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Sets the distance of the clock from the right time, such as `-2d`.
    ///
    /// # Panics
    ///
    /// Panics if the temporary directory can't be written to.
    pub fn step(&self, offset: &str) {
        fs::write(&self.offset, offset).expect("the clock's file");
    }
}

impl Drop for SteppedClock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.offset);
    }
}
