//! What people do to the queue. Everything they do is noted, in the transaction that does it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};

use super::{
    JobState,
    inspect::{self, Filter},
};
use crate::postgres::{Database, Error, Session};

/// The most jobs that one action on a filter changes.
pub const MAX_CHANGED: i64 = 10_000;

/// What can be done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Run it again now, with one attempt more if it has none left.
    Retry,
    /// Run it now, although it is to be run later.
    Run,
    /// Never run it: it is dead.
    Cancel,
}

impl Action {
    /// Its name, as in paths and in the log of actions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Run => "run",
            Self::Cancel => "cancel",
        }
    }

    /// The states in which a job can be for it. A worker that has a job in its hands can't be told to drop it.
    #[must_use]
    pub const fn allowed_in(self) -> &'static [JobState] {
        match self {
            Self::Retry => &[JobState::Failed, JobState::Dead],
            Self::Run => &[JobState::Scheduled, JobState::Failed],
            Self::Cancel => &[JobState::Scheduled, JobState::Due, JobState::Failed],
        }
    }

    const fn changes(self) -> &'static str {
        match self {
            Self::Retry => {
                "status = 'Pending', run_at = now(), max_attempts = greatest(max_attempts, attempts + 1),
                 lock_by = NULL, lock_at = NULL, done_at = NULL"
            }
            Self::Run => "run_at = now()",
            Self::Cancel => {
                r#"status = 'Killed', done_at = now(), last_result = '{"Err": "cancelled by hand"}'"#
            }
        }
    }
}

/// Who does something, and to what, in words.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    /// Who: the name of an API key, or an address.
    pub actor: &'a str,
    /// To what: a job, or a filter.
    pub target: &'a str,
}

/// Does it to those of these jobs that are in a state for it. Returns how many.
///
/// # Errors
///
/// [`Error`]; nothing was done, but for [`Error::OutcomeUnknown`].
pub async fn act(
    database: &Database,
    action: Action,
    ids: &[String],
    note: Note<'_>,
) -> Result<u64, Error> {
    let allowed: Vec<String> = action
        .allowed_in()
        .iter()
        .map(|state| format!("({})", state.condition()))
        .collect();
    let sql = format!(
        "UPDATE apalis.jobs SET {} WHERE id = ANY($1) AND ({})",
        action.changes(),
        allowed.join(" OR ")
    );
    Session::new(database)
        .transact(
            &mut (sql, ids, action, note),
            |tx, (sql, ids, action, note)| {
                Box::pin(async move {
                    let changed = sqlx::query(AssertSqlSafe(sql.as_str()))
                        .bind(*ids)
                        .execute(&mut *tx)
                        .await?
                        .rows_affected();
                    record(tx, action.name(), *note, changed).await
                })
            },
        )
        .await
}

/// Does it to the jobs of a filter, up to [`MAX_CHANGED`] of them. Returns how many.
///
/// # Errors
///
/// [`Error`]; what was done in earlier transactions stays done.
pub async fn act_on_all(
    database: &Database,
    action: Action,
    filter: &Filter,
    note: Note<'_>,
) -> Result<u64, Error> {
    let ids = inspect::ids(&database.pool, filter, MAX_CHANGED).await?;
    let mut changed = 0;
    // In parts, so that none of them holds its locks for long.
    for ids in ids.chunks(1000) {
        changed += act(database, action, ids, note).await?;
    }
    Ok(changed)
}

/// Keeps the jobs of a queue from being handed out, or lets them again. Returns whether it was otherwise before. Workers
/// see it at their next look, four times a second; jobs in hand finish.
///
/// # Errors
///
/// [`Error`]; nothing was done, but for [`Error::OutcomeUnknown`].
pub async fn pause(
    database: &Database,
    queue: &str,
    is_paused: bool,
    actor: &str,
) -> Result<bool, Error> {
    let note = Note {
        actor,
        target: queue,
    };
    let changed = Session::new(database)
        .transact(&mut (is_paused, note), |tx, (is_paused, note)| {
            Box::pin(pause_in(tx, *is_paused, *note))
        })
        .await?;
    Ok(changed > 0)
}

async fn pause_in(tx: &mut PgConnection, is_paused: bool, note: Note<'_>) -> Result<u64, Error> {
    let (action, changed) = if is_paused {
        let paused = sqlx::query!(
            "INSERT INTO queue_pauses (queue, paused_by) VALUES ($1, $2) ON CONFLICT (queue) DO NOTHING",
            note.target,
            note.actor,
        );
        ("pause", paused.execute(&mut *tx).await?)
    } else {
        let resumed = sqlx::query!("DELETE FROM queue_pauses WHERE queue = $1", note.target);
        ("resume", resumed.execute(&mut *tx).await?)
    };
    record(tx, action, note, changed.rows_affected()).await
}

async fn record(
    connection: &mut PgConnection,
    action: &str,
    Note { actor, target }: Note<'_>,
    affected: u64,
) -> Result<u64, Error> {
    tracing::info!(actor, action, target, affected, "intervention");
    sqlx::query!(
        "INSERT INTO interventions (actor, action, target, affected) VALUES ($1, $2, $3, $4)",
        actor,
        action,
        target,
        affected.cast_signed(),
    )
    .execute(connection)
    .await?;
    Ok(affected)
}

/// The actor of what the janitor does.
pub const JANITOR: &str = "janitor";

/// Notes what the janitor had to put right: each time it is the trace of a failure.
///
/// # Errors
///
/// [`Error`].
pub async fn note_find(
    pool: &PgPool,
    action: &str,
    target: &str,
    affected: u64,
) -> Result<(), Error> {
    let note = Note {
        actor: JANITOR,
        target,
    };
    let mut connection = pool.acquire().await?;
    record(&mut connection, action, note, affected).await?;
    Ok(())
}

/// Something that was done to the queue by others than its workers.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Intervention {
    /// Its identity; ascends.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: the name of an API key, an address, or [`JANITOR`].
    pub actor: String,
    /// What: an [`Action`]'s name, `pause`, `resume`; of the janitor: `sweep`, `rescue`, `bury`.
    pub action: String,
    /// To what, in words: a job, a queue, a filter.
    pub target: String,
    /// How many jobs it changed, or holds; of a queue 1, and 0 where it was so already.
    pub affected: i64,
}

/// A page of them, the last first, before the one with this id.
///
/// # Errors
///
/// [`Error`].
pub async fn interventions(
    pool: &PgPool,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Intervention>, Error> {
    let interventions = sqlx::query_as!(
        Intervention,
        "SELECT id, at, actor, action, target, affected FROM interventions WHERE id < $1 ORDER BY id DESC LIMIT $2",
        before.unwrap_or(i64::MAX),
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(interventions)
}
