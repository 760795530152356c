//! Search for the programs of a PostgreSQL server.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Returns the directory with the server's programs.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    let places = program_dirs();
    places
        .iter()
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        // Links are resolved, because a directory of links may lack some of the programs.
        .and_then(|dir| Some(fs::canonicalize(dir.join("initdb")).ok()?.parent()?.to_owned()))
        .with_context(|| {
            let searched: String = places
                .iter()
                .map(|dir| format!("\n  {}", dir.display()))
                .collect();
            format!(
                "no PostgreSQL server found. Set DATABASE_URL to a running one, or install one:\n\
                 \n  Debian, Ubuntu   sudo apt-get install -y postgresql\
                 \n  Fedora           sudo dnf install -y postgresql-server postgresql-contrib\
                 \n  macOS            brew install postgresql@17\
                 \n\nSearched PG_BIN_DIR, PATH and the usual directories for initdb and postgres:{searched}"
            )
        })
}

/// Returns the directories that may have the programs, the best one first.
///
/// It is `PG_BIN_DIR` alone if that is set, else `PATH` and then the newest version in each of the
/// usual directories.
fn program_dirs() -> Vec<PathBuf> {
    if let Some(dir) = env::var_os("PG_BIN_DIR") {
        return vec![dir.into()];
    }
    let mut dirs: Vec<PathBuf> = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .collect();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        dirs.extend(versions(Path::new(parent), prefix));
    }
    dirs.push("/usr/bin".into());
    dirs
}

/// Returns `parent/<prefix><version>/bin` for each version found, the newest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}
