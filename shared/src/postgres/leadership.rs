//! Leader election among processes that share a database.

use sqlx::{Connection, PgConnection, PgPool};

use super::{
    error::Error,
    timeouts::{PING_TIMEOUT, within},
};

/// Leadership among the processes that share a database: the leader holds an advisory lock.
///
/// The lock belongs to this connection. So when the process dies, another one can lead at once.
#[derive(Debug)]
pub struct Leadership {
    connection: PgConnection,
}

impl Leadership {
    /// Takes the leadership for `key`, unless another process holds it.
    ///
    /// # Errors
    ///
    /// Fails if the database can't be queried.
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

    /// Checks that this process still holds the leadership.
    ///
    /// # Errors
    ///
    /// Fails if the connection was lost, and the leadership with it.
    pub async fn check(&mut self) -> Result<(), Error> {
        Ok(within(PING_TIMEOUT, self.connection.ping()).await?)
    }
}
