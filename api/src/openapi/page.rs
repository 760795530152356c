//! The routes `/openapi.json` and `/docs`.

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
    response::Response,
};
use utoipa_swagger_ui::SwaggerUi;

use super::document::document;

/// Content security policy of the page: nothing from other origins, but inline styles and images.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

/// Returns the routes `/openapi.json` and `/docs`, a page to read and try the API.
///
/// All assets of the page are embedded in the binary.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let pages: Router<S> = SwaggerUi::new("/docs")
        .external_url_unchecked("/openapi.json", document())
        .into();
    pages.layer(axum::middleware::map_response(
        async |mut response: Response| {
            response.headers_mut().insert(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(PAGE_POLICY),
            );
            response
        },
    ))
}
