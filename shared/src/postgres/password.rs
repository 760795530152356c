//! Database password in a file, whose content changes when the password is rotated.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::sleep;

use super::{error::Error, timeouts::within};

/// Reads the password from a file, without the newline at its end.
///
/// # Errors
///
/// Fails if the file can't be read.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read the database's password from {}",
            file.display()
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Interval at which the file is read again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of a connection that tries a new password.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Uses a changed password for new connections of this pool, until the pool is closed.
///
/// It is used once the database accepts it. So it does not matter whether the file or the database
/// is changed first.
pub(super) async fn follow(pool: PgPool, file: PathBuf) {
    let mut current = read(&file).ok();
    let following = async {
        loop {
            sleep(LOOK_INTERVAL).await;
            let Ok(password) = read(&file) else {
                continue;
            };
            if current.as_ref() == Some(&password) {
                continue;
            }
            let options = pool.connect_options().as_ref().clone().password(&password);
            let opened = within::<_, Error>(TRY_TIMEOUT, async {
                Ok(PgConnection::connect_with(&options).await?)
            });
            if let Ok(connection) = opened.await {
                connection.close().await.ok();
                pool.set_connect_options(options);
                current = Some(password);
                tracing::info!("new connections use the new database password");
            }
        }
    };
    pool.close_event().do_until(Box::pin(following)).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_file_has_no_newline_at_its_end() {
        let file = std::env::temp_dir().join(format!("ticketing-password-{}", std::process::id()));
        for written in ["p w", "p w\n", "p w\r\n"] {
            fs::write(&file, written).unwrap();
            assert_eq!(read(&file).unwrap(), "p w");
        }
        fs::remove_file(&file).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("ticketing-password-"), "{error}");
    }
}
