//! Handler of `/overview`.

use std::sync::Arc;

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use super::{
    poll::{Point, Snapshot},
    state::AdminState,
};
use crate::{
    input::{
        caller::{Administer, Caller},
        url::Query,
    },
    output::problem::Problem,
};

/// Query of `/overview`.
#[derive(Debug, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Since {
    /// Return only polls after this time; default: the whole history.
    #[garde(skip)]
    since: Option<DateTime<Utc>>,
}

/// Response of `/overview`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    version: &'static str,
    /// Why the last poll failed; none if it succeeded.
    failure: Option<String>,
    now: Option<Arc<Snapshot>>,
    history: Vec<Point>,
}

pub(super) async fn overview(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Query(Since { since }): Query<Since>,
) -> Result<Json<Overview>, Problem> {
    let polled = state.poller.polled();
    let history = polled.history.iter();
    Ok(Json(Overview {
        version: env!("CARGO_PKG_VERSION"),
        failure: polled.failure.clone(),
        now: polled.last.clone(),
        history: history
            .filter(|point| since.is_none_or(|since| point.at > since))
            .cloned()
            .collect(),
    }))
}
