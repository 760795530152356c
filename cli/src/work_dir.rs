//! Where a command keeps the database that it makes for itself, and the logs.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;

/// A new directory. It stays until it is removed, because its logs tell what went wrong.
pub(crate) struct WorkDir(PathBuf);

impl WorkDir {
    /// In this directory, and named after the command and this process.
    pub(crate) fn make(parent: &Path, command: &str) -> anyhow::Result<Self> {
        let dir = parent.join(format!("ticketing-{command}-{}", process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    pub(crate) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }
}

impl Deref for WorkDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}
