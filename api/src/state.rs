//! State that all handlers of the API share.

use std::sync::Arc;

use axum::extract::FromRef;
use shared::{
    booking::{Change, Refusal},
    id::{BookingId, ShowId},
    postgres::{Database, Engine},
};
use tokio_util::sync::CancellationToken;

use crate::{
    group_commit::{
        GroupCommit, Lanes, Sharing,
        kinds::{Cancel, Confirm, Extend, Locate, Reserve},
    },
    output::{large_body::LargeBodies, problem::Problem},
};

/// State of the API.
pub(crate) struct AppState {
    pub(crate) database: Database,
    pub(crate) reserve: GroupCommit<Reserve>,
    pub(crate) confirm: GroupCommit<Confirm>,
    pub(crate) cancel: GroupCommit<Cancel>,
    pub(crate) extend: GroupCommit<Extend>,
    /// Finds the show of a booking, on engines that need it.
    locate: Option<GroupCommit<Locate>>,
    large_bodies: LargeBodies,
    /// Cancelled when the process is to stop.
    pub(crate) stop: CancellationToken,
}

impl AppState {
    /// Starts the lanes' queues. At most `large_bodies_max` large bodies are in memory at the same
    /// time.
    pub(crate) fn new(
        database: Database,
        lanes: &Lanes,
        large_bodies_max: usize,
        stop: &CancellationToken,
    ) -> Self {
        let engine = database.engine;
        let sharing = match engine {
            Engine::Postgres => Sharing::Any,
            Engine::Citus => Sharing::SameKey,
        };
        Self {
            reserve: GroupCommit::start(lanes, sharing),
            confirm: GroupCommit::start(lanes, sharing),
            cancel: GroupCommit::start(lanes, sharing),
            extend: GroupCommit::start(lanes, sharing),
            locate: (engine == Engine::Citus).then(|| GroupCommit::start(lanes, Sharing::Any)),
            large_bodies: LargeBodies::new(large_bodies_max),
            stop: stop.clone(),
            database,
        }
    }

    /// Describes a change to a booking, and finds the booking's show if the engine needs it.
    pub(crate) async fn change(
        &self,
        booking_id: BookingId,
        show_id: Option<ShowId>,
        only_if: Option<Vec<String>>,
    ) -> Result<Change, Problem> {
        Ok(Change {
            booking_id,
            show_id: self.locate(booking_id, show_id).await?,
            only_if,
            claim: None,
        })
    }

    /// Returns the show of a booking, if it is known or the engine needs it.
    pub(crate) async fn locate(
        &self,
        booking_id: BookingId,
        show_id: Option<ShowId>,
    ) -> Result<Option<ShowId>, Problem> {
        match (show_id, &self.locate) {
            (None, Some(locate)) => {
                let show_id = locate.submit(booking_id.0, booking_id).await?;
                Ok(Some(
                    show_id.ok_or(Refusal::BookingNotFound { booking_id })?,
                ))
            }
            (show_id, _) => Ok(show_id),
        }
    }
}

impl FromRef<Arc<AppState>> for LargeBodies {
    fn from_ref(state: &Arc<AppState>) -> Self {
        state.large_bodies.clone()
    }
}
