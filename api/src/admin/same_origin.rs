//! Keeps pages of other origins from using a browser that can reach the admin listener.
//!
//! Where a key is asked for, they have none. Where none is, because only this machine can reach it, a page that somebody on
//! this machine looks at could send requests, too.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, Method,
        header::{HOST, HeaderName, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::Problem;

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct SameOrigin {
    /// Whether the name by which it is asked for must be one of this machine: a page could else give its own name this
    /// machine's address (DNS rebinding), and be of the same origin.
    pub(super) checks_host: bool,
}

pub(super) async fn check(
    State(check): State<SameOrigin>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if check.checks_host && !is_this_machine(headers) {
        return Problem::UnknownHost.into_response();
    }
    let changes = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if changes && !is_same_origin(headers) {
        return Problem::CrossOrigin.into_response();
    }
    next.run(request).await
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// By an address, or by a name that browsers give to no other machine. What is no browser may leave it out.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = host(headers) else {
        return !headers.contains_key(HOST);
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By what browsers say of it; what is no browser says nothing.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    origin.is_some_and(|(_, origin)| host(headers) == Some(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        let all = all.iter().cloned();
        all.map(|(name, value)| (name, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for ours in [
            "127.0.0.1:5001",
            "127.0.0.1",
            "[::1]:5001",
            "localhost:5001",
            "a.localhost",
        ] {
            assert!(is_this_machine(&headers(&[(HOST, ours)])), "{ours}");
        }
        for theirs in [
            "evil.example",
            "evil.example:5001",
            "localhost.evil.example",
            "",
            ":",
        ] {
            assert!(!is_this_machine(&headers(&[(HOST, theirs)])), "{theirs}");
        }
        assert!(is_this_machine(&headers(&[])));
    }

    #[test]
    fn only_pages_of_this_listener_may_change_things() {
        let host = (HOST, "127.0.0.1:5001");
        let allowed = [
            vec![],
            vec![(SEC_FETCH_SITE, "same-origin")],
            vec![(SEC_FETCH_SITE, "none")],
            vec![(ORIGIN, "http://127.0.0.1:5001")],
        ];
        for mut sent in allowed {
            sent.push(host.clone());
            assert!(is_same_origin(&headers(&sent)), "{sent:?}");
        }
        let refused = [
            vec![(SEC_FETCH_SITE, "cross-site")],
            vec![(SEC_FETCH_SITE, "same-site")],
            vec![
                (SEC_FETCH_SITE, "cross-site"),
                (ORIGIN, "http://127.0.0.1:5001"),
            ],
            vec![(ORIGIN, "http://127.0.0.1:5000")],
            vec![(ORIGIN, "null")],
            vec![(ORIGIN, "https://evil.example")],
        ];
        for mut sent in refused {
            sent.push(host.clone());
            assert!(!is_same_origin(&headers(&sent)), "{sent:?}");
        }
    }
}
