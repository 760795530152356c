//! Actions of operators on the queue. Each is recorded in the transaction that does it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};

use super::{
    JobState,
    inspect::{self, Filter},
};
use crate::postgres::{Database, Error, Session, Work};

/// Maximum number of jobs that one action on a filter changes.
pub const MAX_CHANGED: i64 = 10_000;

/// Action on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Run the job again now, with one more attempt if it has none left.
    Retry,
    /// Run the job now, although it is due later.
    Run,
    /// Never run the job: it becomes dead.
    Cancel,
}

impl Action {
    /// Returns the name, as in paths and in the log of interventions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Run => "run",
            Self::Cancel => "cancel",
        }
    }

    /// Returns the states in which a job allows this action.
    ///
    /// A running job allows none, since its worker can't be made to drop it.
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

/// Actor and target of an action, in words.
#[derive(Debug, Clone, Copy)]
pub struct Note<'a> {
    /// Actor: the name of an API key, or an address.
    pub actor: &'a str,
    /// Target: a job, or a filter.
    pub target: &'a str,
}

/// Does the action to those of these jobs whose state allows it. Returns how many.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with [`Error::OutcomeUnknown`].
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
    let act = Act {
        sql,
        ids,
        action,
        note,
    };
    Session::new(database).transact(act).await
}

/// Transaction that does an action to jobs and records it. Returns how many jobs changed.
struct Act<'a> {
    /// Statement that changes those of the jobs whose state allows the action.
    sql: String,
    ids: &'a [String],
    action: Action,
    note: Note<'a>,
}

impl Work for Act<'_> {
    type Output = u64;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<u64, Error> {
        let changed = sqlx::query(AssertSqlSafe(self.sql.as_str()))
            .bind(self.ids)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        record(tx, self.action.name(), self.note, changed).await
    }
}

/// Does the action to the jobs that match a filter, up to [`MAX_CHANGED`]. Returns how many.
///
/// # Errors
///
/// Fails if the database call fails; what was done in earlier transactions stays done.
pub async fn act_on_all(
    database: &Database,
    action: Action,
    filter: &Filter,
    note: Note<'_>,
) -> Result<u64, Error> {
    let ids = inspect::ids(&database.pool, filter, MAX_CHANGED).await?;
    let mut changed = 0;
    // In chunks, so that no transaction holds its locks for long.
    for ids in ids.chunks(1000) {
        changed += act(database, action, ids, note).await?;
    }
    Ok(changed)
}

/// Pauses or resumes a queue. Returns whether that changed anything.
///
/// Workers see it at their next poll, four times a second. Running jobs finish.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with [`Error::OutcomeUnknown`].
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
    let pause = Pause { is_paused, note };
    Ok(Session::new(database).transact(pause).await? > 0)
}

/// Transaction that pauses or resumes the queue that is the note's target, and records it.
struct Pause<'a> {
    is_paused: bool,
    note: Note<'a>,
}

impl Work for Pause<'_> {
    type Output = u64;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<u64, Error> {
        let note = self.note;
        let (action, changed) = if self.is_paused {
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

/// Actor of the janitor's interventions.
pub const JANITOR: &str = "janitor";

/// Records something that the janitor had to put right, each time the trace of a failure.
///
/// # Errors
///
/// Fails if the database call fails.
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

/// Action on the queue by anyone but its workers.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Intervention {
    /// Id of the intervention; ids ascend.
    pub id: i64,
    /// Time of the action.
    pub at: DateTime<Utc>,
    /// Actor: the name of an API key, an address, or [`JANITOR`].
    pub actor: String,
    /// Action: an [`Action`]'s name, `pause` or `resume`; of the janitor `sweep`, `rescue` or
    /// `bury`.
    pub action: String,
    /// Target in words: a job, a queue, a filter.
    pub target: String,
    /// Number of jobs changed, or of holds; for a pause or resume 1, or 0 if it changed nothing.
    pub affected: i64,
}

/// Lists a page of interventions, newest first, before the one with this id.
///
/// # Errors
///
/// Fails if the database call fails.
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
