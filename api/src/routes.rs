//! Routes of the API and their handlers.

pub(crate) mod bookings;
pub(crate) mod health;
pub(crate) mod shows;

use std::sync::Arc;

use tower_http::compression::CompressionLayer;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::state::AppState;

/// Returns the routes that the OpenAPI document describes: all except those that serve it.
pub(crate) fn documented() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .routes(routes!(shows::list).layer(compression()))
        .routes(routes!(shows::create))
        .routes(routes!(shows::find, shows::change::edit))
        .routes(routes!(shows::change::pause))
        .routes(routes!(shows::change::resume))
        .routes(routes!(shows::change::archive))
        .routes(routes!(shows::change::cancel))
        .routes(routes!(shows::export::export).layer(compression()))
        .routes(routes!(bookings::list::list).layer(compression()))
        .routes(routes!(bookings::reserve::reserve))
        .routes(routes!(bookings::bulk::reserve_in_bulk).layer(compression()))
        .routes(routes!(bookings::find))
        .routes(routes!(bookings::change::confirm))
        .routes(routes!(bookings::change::cancel))
        .routes(routes!(bookings::change::extend))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// Returns the paths of all routes, except the assets of the documentation page.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let documented = documented().into_openapi().paths.paths.into_keys();
    documented.chain(["/docs/".to_owned(), "/openapi.json".to_owned()])
}

/// Returns the compression middleware for lists and results of bulk requests. Other responses are too short to benefit.
fn compression() -> CompressionLayer {
    CompressionLayer::new()
}
