//! Reserving: takes seats of a show for a hold.

mod insert;
mod ledger;
mod request;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

pub use self::request::Request;
use self::{
    insert::New,
    ledger::{Decision, Earlier, Ledger, lacking_seats},
};
use super::{
    expire,
    locks::{self, Lock},
    query,
    refusal::Refusal,
    rules::Booking,
    taken,
};
use crate::{
    batch::Batch,
    id::{BookingId, ShowId},
    idempotency::{self, Created, Key},
    metrics::BOOKINGS,
    postgres::{self, Engine, Session, Work},
    show::{self, Inventory},
};

/// New hold, or the booking that an earlier request with the same key made; or a refusal.
pub type Answer = Result<Created<Booking>, Refusal>;

/// Maximum number of times that a batch short of seats waits for a transaction that may free some.
const WAITS: u32 = 3;

/// Reserves seats in one transaction. Returns an answer to each request, in the same order.
///
/// Requests are decided in order. More requests for the same shows join while the transaction waits
/// for the shows' locks.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn reserve(
    session: &mut Session,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Answer>, postgres::Error> {
    let engine = session.engine();
    let mut waits = WAITS;
    let answers = loop {
        let reserve = Reserve {
            batch: &mut *batch,
            engine,
            waits,
        };
        match session.transact(reserve).await? {
            Outcome::Answered(answers) => break answers,
            Outcome::SeatsComeBack { lock } => match locks::wait(session, lock).await {
                Ok(()) => waits -= 1,
                Err(postgres::Error::Locked(_)) => waits = 0,
                Err(error) => return Err(error),
            },
        }
    };
    let is_new = |answer: &&Answer| answer.as_ref().is_ok_and(|made| !made.is_replay);
    BOOKINGS
        .reserved
        .inc_by(answers.iter().filter(is_new).count() as u64);
    Ok(answers)
}

/// Transaction that reserves seats.
#[derive(Debug)]
pub struct Reserve<'b, 'w> {
    /// Requests, which more requests for the same shows join.
    pub batch: &'b mut Batch<'w, Request>,
    /// Engine of the database.
    pub engine: Engine,
    /// Number of times that the outcome may still be [`Outcome::SeatsComeBack`].
    pub waits: u32,
}

/// Outcome of a transaction that reserves.
#[derive(Debug)]
pub enum Outcome {
    /// The requests were decided.
    Answered(Vec<Answer>),
    /// No request was decided: seats are lacking, and another transaction has locked an overdue
    /// hold. It may be about to free the hold's seats, and wait for the show's lock.
    SeatsComeBack {
        /// Lock of the hold. Once it can be taken, the other transaction has ended.
        lock: Lock,
    },
}

impl Work for Reserve<'_, '_> {
    type Output = Outcome;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Outcome, postgres::Error> {
        let batch = &mut *self.batch;
        let show_ids: BTreeSet<ShowId> = batch.members().iter().map(|r| r.show_id).collect();
        let to_lock: Vec<ShowId> = show_ids.iter().copied().collect();
        let show_id = show::only(&to_lock);
        let mut shows = show::lock(tx, &to_lock).await?;
        batch.admit(|request| show_ids.contains(&request.show_id));
        let requests = batch.members();

        let Some(now) = shows.locked_at else {
            return refuse_all(tx, requests).await.map(Outcome::Answered);
        };
        let lacking = lacking_seats(&shows, requests);
        if let Some(id) = expire::reclaim(tx, &mut shows, &lacking, now).await?
            && self.waits > 0
            && !lacking_seats(&shows, requests).is_empty()
        {
            let lock = Lock::Booking { id, show_id };
            return Ok(Outcome::SeatsComeBack { lock });
        }
        let mut ledger = Ledger {
            earlier: made_earlier(tx, requests, show_id, now).await?,
            taken: taken_by_users(tx, &shows.inventories, requests, show_id, now).await?,
            shows,
        };
        let decisions = ledger.decide(requests, now);
        let answers = write(tx, &mut ledger.shows, requests, decisions, now, self.engine).await?;
        Ok(Outcome::Answered(answers))
    }
}

/// Refuses requests for shows that do not exist.
async fn refuse_all(
    tx: &mut PgConnection,
    requests: &[Request],
) -> Result<Vec<Answer>, postgres::Error> {
    let used = idempotency::find(tx, keys(requests)).await?;
    let refusal = |request: &Request| match &request.claim {
        Some(claim) if used.contains_key(&claim.key) => Refusal::KeyReused,
        _ => Refusal::ShowNotFound {
            show_id: request.show_id,
        },
    };
    Ok(requests.iter().map(|r| Err(refusal(r))).collect())
}

fn keys(requests: &[Request]) -> impl Iterator<Item = &Key> {
    requests.iter().filter_map(|r| Some(&r.claim.as_ref()?.key))
}

/// Finds what earlier requests with the same keys made, as it is now.
///
/// It reads while the shows are locked: any other transaction with the same key for the same show
/// has committed or has not begun. If a show is given, it is the show of all requests.
async fn made_earlier(
    tx: &mut PgConnection,
    requests: &[Request],
    show_id: Option<ShowId>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<Key, Earlier>, postgres::Error> {
    let records = idempotency::find(tx, keys(requests)).await?;
    let ids: Vec<BookingId> = records.values().filter_map(|r| r.booking_id).collect();
    let mut bookings = query::find_many_in(tx, &ids, show_id).await?;
    Ok(records
        .into_iter()
        .map(|(key, record)| {
            let booking = record.booking_id.and_then(|id| bookings.remove(&id));
            let earlier = match booking {
                Some(booking) => Earlier::Booking {
                    fingerprint: record.fingerprint,
                    made: Decision::Made(Box::new(booking.as_of(now))),
                },
                None => Earlier::Other,
            };
            (key, earlier)
        })
        .collect())
}

/// Returns how many seats the users of these requests have, held or confirmed.
///
/// It counts only in shows that limit the seats of a user. If a show is given, it is the show of
/// all requests.
async fn taken_by_users(
    tx: &mut PgConnection,
    inventories: &BTreeMap<ShowId, Inventory>,
    requests: &[Request],
    show_id: Option<ShowId>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<(ShowId, String), i64>, postgres::Error> {
    let is_limited = |show_id| {
        inventories
            .get(&show_id)
            .is_some_and(|show| show.max_seats_per_user.is_some())
    };
    let users = requests
        .iter()
        .filter(|request| is_limited(request.show_id))
        .map(|request| (request.show_id, request.user_name.as_str()));
    taken::by_users(tx, users, show_id, now).await
}

/// Writes a pending booking for each request that got a hold, and answers each request.
///
/// The job is due at the earliest of their deadlines; the worker reschedules it for later ones.
async fn write(
    tx: &mut PgConnection,
    shows: &mut show::Locked,
    requests: &[Request],
    decisions: Vec<Result<Decision, Refusal>>,
    now: DateTime<Utc>,
    engine: Engine,
) -> Result<Vec<Answer>, postgres::Error> {
    let mut new = New::default();
    for (request, decision) in requests.iter().zip(&decisions) {
        if let Ok(Decision::Hold(hold)) = decision {
            new.push(request, *hold, now);
        }
    }
    let mut inserted = new.insert(tx, shows, now, engine).await?.into_iter();
    let mut answers: Vec<Answer> = Vec::with_capacity(requests.len());
    for decision in decisions {
        let answer = match decision {
            Ok(Decision::Hold(_)) => {
                let booking = postgres::expect_row("new bookings", inserted.next())?;
                Ok(Created::now(booking.as_of(now)))
            }
            Ok(Decision::Made(booking)) => Ok(Created::earlier(*booking)),
            Ok(Decision::SameAs(position)) => answers[position]
                .clone()
                .map(|made| Created::earlier(made.resource)),
            Err(refusal) => Err(refusal),
        };
        answers.push(answer);
    }
    Ok(answers)
}
