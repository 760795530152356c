//! All routes, and what each of them does.

pub(crate) mod bookings;
pub(crate) mod health;
pub(crate) mod shows;

use std::sync::Arc;

use axum::Router;
use tower_http::compression::CompressionLayer;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::{AppState, openapi};

/// The routes that the document describes: all but its own.
pub(crate) fn documented() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .routes(routes!(shows::list).layer(compression()))
        .routes(routes!(shows::create))
        .routes(routes!(shows::find))
        .routes(routes!(bookings::list).layer(compression()))
        .routes(routes!(bookings::reserve))
        .routes(routes!(bookings::find))
        .routes(routes!(bookings::confirm))
        .routes(routes!(bookings::cancel))
        .routes(routes!(bookings::extend))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The paths of all routes, but for what the page that documents them loads.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let documented = documented().into_openapi().paths.paths.into_keys();
    documented.chain(["/docs/".to_owned(), "/openapi.json".to_owned()])
}

/// For lists: the other answers are too short to gain by it.
fn compression() -> CompressionLayer {
    CompressionLayer::new()
}

/// All routes.
pub(crate) fn all() -> Router<Arc<AppState>> {
    Router::from(documented()).merge(openapi::pages())
}
