//! The directory in which a command keeps its private database and its logs.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;

/// A new directory for a command's database and logs.
///
/// It is not removed on drop, because after a failure its logs are needed.
pub(crate) struct WorkDir(PathBuf);

impl WorkDir {
    /// Creates a directory in `parent`, named after the command and this process.
    pub(crate) fn make(parent: &Path, command: &str) -> anyhow::Result<Self> {
        let dir = parent.join(format!("ticketing-{command}-{}", process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
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
