//! CORS: access to the API for web pages of other origins.

use axum::http::{
    HeaderName, HeaderValue, Method,
    header::{
        AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER,
    },
};
use shared::http::request_id::REQUEST_ID;
use std::time::Duration;
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::{Origin, Url};

/// Allows all origins.
pub(crate) const ANY: &str = "*";

/// Parses an origin from the command line.
///
/// It must be written as browsers write it, since it is compared with what they send.
pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    let text = text.trim();
    if text != ANY {
        if text.contains('*') {
            return Err("an origin has no wildcards; `*` alone allows all origins".to_owned());
        }
        let url = Url::parse(text)
            .map_err(|error| format!("{error}; an origin looks like https://tickets.example"))?;
        let origin = match url.origin() {
            origin @ Origin::Tuple(..) => origin.ascii_serialization(),
            // The origins of apps, such as capacitor://localhost.
            Origin::Opaque(_) => match url.host_str() {
                Some(host) => format!("{}://{host}", url.scheme()),
                None => return Err("an origin looks like https://tickets.example".to_owned()),
            },
        };
        if origin != text {
            return Err(format!("browsers write this origin as {origin}"));
        }
    }
    HeaderValue::from_str(text).map_err(|error| error.to_string())
}

/// Returns the CORS middleware; none if no page of another origin may use the API.
pub(crate) fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let origins = match origins {
        [] => return None,
        some if some.iter().any(|origin| origin == ANY) => AllowOrigin::any(),
        some => AllowOrigin::list(some.to_vec()),
    };
    let sent = [
        AUTHORIZATION,
        CONTENT_TYPE,
        IF_MATCH,
        IF_NONE_MATCH,
        REQUEST_ID,
    ];
    let own_sent = [HeaderName::from_static("idempotency-key")];
    let read = [ETAG, LINK, LOCATION, RETRY_AFTER, REQUEST_ID];
    let own_read = ["idempotency-replayed", "ratelimit", "ratelimit-policy"];
    let own_read = own_read.map(HeaderName::from_static);
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::PATCH, Method::POST])
            .allow_headers([&sent[..], &own_sent].concat())
            .expose_headers([&read[..], &own_read].concat())
            .max_age(Duration::from_hours(1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_as_browsers_write_it() {
        for text in [
            "*",
            "https://tickets.example",
            "http://localhost:3000",
            "http://[::1]:3000",
            "capacitor://localhost",
            " https://tickets.example ",
        ] {
            assert_eq!(origin(text).unwrap(), text.trim(), "{text}");
        }
        for (text, why) in [
            ("https://tickets.example/", "https://tickets.example"),
            ("https://Tickets.example", "https://tickets.example"),
            ("HTTPS://tickets.example", "https://tickets.example"),
            ("https://tickets.example:443", "https://tickets.example"),
            ("https://tickets.example/shop", "https://tickets.example"),
            ("https://me@tickets.example", "https://tickets.example"),
            ("https://müller.example", "https://xn--mller-kva.example"),
            ("tickets.example", "looks like"),
            ("null", "looks like"),
            ("", "looks like"),
            ("https://*.example", "wildcard"),
            ("mailto:me", "looks like"),
            ("file:///tmp", "looks like"),
        ] {
            let error = origin(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
