//! One leader among processes that share a database.

use sqlx::{Connection, PgConnection, PgPool};

use super::{Error, PING_TIMEOUT, within};

/// The leader among processes that share a database: the one that holds an advisory lock. Its connection holds
/// the lock, so when the process dies, another one can lead at once.
#[derive(Debug)]
pub struct Leadership {
    connection: PgConnection,
}

impl Leadership {
    /// Takes the lead for `key`, unless another process has it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn try_take(pool: &PgPool, key: i64) -> Result<Option<Self>, Error> {
        let mut connection = pool.acquire().await?.detach();
        let taken = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "taken!""#, key)
            .fetch_one(&mut connection)
            .await?;
        if taken {
            return Ok(Some(Self { connection }));
        }
        connection.close().await?;
        Ok(None)
    }

    /// Fails when the connection was lost, and the lead with it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn check(&mut self) -> Result<(), Error> {
        Ok(within(PING_TIMEOUT, self.connection.ping()).await?)
    }
}
