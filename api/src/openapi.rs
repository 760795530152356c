//! The OpenAPI 3.1 document of the API, made from the handlers and their problems.

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
    response::Response,
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use crate::{config::MAX_BODY_BYTES, output::problem::Problem, routes};

/// Parts of the document that do not come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ticketing",
        description = "Sells seats of shows.\n\nReserve seats with `POST /bookings`. The booking holds them for a while \
                       (`secondsLeft`). Extend the hold if payment takes longer, and confirm the booking when it is \
                       paid. A hold that is not confirmed in time becomes `FAILED`, and its seats go back on sale. \
                       Cancel a booking to release its seats earlier, or after it was sold.\n\nIf no response \
                       arrives, retry the request: `POST /bookings` and `POST /shows` with the same \
                       `Idempotency-Key`, everything else unchanged. After a 429 or 503 with `Retry-After`, wait for \
                       this number of seconds first.\n\nEvery error is an RFC 9457 problem. Programs should use \
                       `type`, which never changes; the other members describe the occurrence.",
    ),
    tags(
        (name = "shows", description = "Shows with seats to sell."),
        (name = "bookings", description = "Bookings of seats of one show for one user."),
        (name = "health", description = "Health checks for load balancers and orchestrators."),
    ),
)]
struct Described;

/// Problems of each operation besides [`ALWAYS`] and [`GUARDED`], by the last part of `type`.
const PROBLEMS: [(&str, &[&str]); 11] = [
    (
        "createShow",
        &[
            "malformed",
            "body-too-large",
            "not-json",
            "content-encoding",
            "invalid",
            "idempotency-key-reused",
        ],
    ),
    ("findShow", &["malformed", "show-not-found"]),
    ("listShows", &["malformed", "invalid"]),
    (
        "reserveSeats",
        &[
            "malformed",
            "body-too-large",
            "not-json",
            "content-encoding",
            "invalid",
            "idempotency-key-reused",
            "show-not-found",
            "too-many-seats",
            "user-limit-reached",
            "not-enough-seats",
        ],
    ),
    ("findBooking", &["malformed", "booking-not-found"]),
    ("listBookings", &["malformed", "invalid"]),
    (
        "confirmBooking",
        &[
            "malformed",
            "booking-not-found",
            "hold-expired",
            "booking-cancelled",
            "booking-changed",
        ],
    ),
    (
        "cancelBooking",
        &[
            "malformed",
            "booking-not-found",
            "hold-expired",
            "booking-changed",
        ],
    ),
    (
        "extendHold",
        &[
            "malformed",
            "body-too-large",
            "not-json",
            "content-encoding",
            "invalid",
            "booking-not-found",
            "hold-expired",
            "booking-cancelled",
            "booking-confirmed",
            "extension-too-long",
            "booking-changed",
        ],
    ),
    ("live", &[]),
    ("ready", &[]),
];

/// Problems of every operation.
const ALWAYS: [&str; 5] = [
    "unavailable",
    "not-ready",
    "timed-out",
    "outcome-unknown",
    "internal",
];

/// Further problems of every operation except health checks.
const GUARDED: [&str; 7] = [
    "cross-origin",
    "unknown-host",
    "api-key-required",
    "api-key-invalid",
    "scope-required",
    "too-many-requests",
    "overloaded",
];

/// Returns the OpenAPI document.
///
/// # Panics
///
/// Panics if a handler has no entry in `PROBLEMS`, a bug that every test would find.
#[must_use]
pub fn document() -> Value {
    let mut handlers = routes::documented().into_openapi();
    handlers.merge(Described::openapi());
    handlers.info = Described::openapi().info;
    let mut document = serde_json::to_value(handlers).expect("a document is JSON");
    let problems: Map<String, Value> = Problem::one_of_each()
        .iter()
        .map(|problem| (problem.kind().to_owned(), problem.document()))
        .collect();
    forget_null(&mut document["paths"]);
    for item in document["paths"]
        .as_object_mut()
        .expect("paths")
        .values_mut()
    {
        for operation in item.as_object_mut().expect("a path").values_mut() {
            add_problems(operation, &problems);
        }
    }
    document["info"]
        .as_object_mut()
        .expect("info")
        .remove("license");
    document["servers"] = json!([{ "url": "/" }]);
    document["paths"]["/bookings"]["post"]["responses"]["201"]["links"] = [
        "findBooking",
        "confirmBooking",
        "cancelBooking",
        "extendHold",
    ]
    .map(|id| {
        let link = json!({ "operationId": id, "parameters": { "id": "$response.body#/id" } });
        (id.to_owned(), link)
    })
    .into_iter()
    .collect();
    let components = &mut document["components"];
    components["schemas"]["Problem"] = problem_schema();
    components["headers"] = headers();
    components["securitySchemes"]["apiKey"] = json!({
        "type": "http", "scheme": "bearer", "bearerFormat": "tkt_<id>_<secret>",
        "description": "API key. The operator of the server creates one with `ticketing key create`. A server on a loopback \
                        address requires none, unless configured to. A key has scopes; no scope includes another.",
    });
    components["examples"] = problems
        .into_iter()
        .map(|(kind, problem)| {
            let example = json!({ "summary": problem["title"], "value": problem });
            (kind, example)
        })
        .collect();
    document
}

/// Removes null from the types of parameters and headers: they may be absent, but never null.
fn forget_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = members.get_mut("oneOf") {
                choices.retain(|choice| choice["type"] != "null");
            }
            members.values_mut().for_each(forget_null);
        }
        Value::Array(elements) => elements.iter_mut().for_each(forget_null),
        _ => {}
    }
}

/// Adds a response to an operation for each status of its problems.
fn add_problems(operation: &mut Value, problems: &Map<String, Value>) {
    let id = operation["operationId"].as_str().expect("an id");
    let (_, own) = PROBLEMS
        .iter()
        .find(|(of, _)| *of == id)
        .expect("an operation has an entry in PROBLEMS");
    let is_guarded = operation["security"].is_array();
    let guarded = GUARDED.into_iter().filter(|_| is_guarded);
    let kinds: Vec<&str> = own.iter().copied().chain(guarded).chain(ALWAYS).collect();
    for kind in kinds {
        let problem = &problems[kind];
        let response = &mut operation["responses"][problem["status"].to_string()];
        let title = problem["title"].as_str().expect("a title");
        let description = match response["description"].as_str() {
            Some(others) => format!("{others} · {title}"),
            None => title.to_owned(),
        };
        response["description"] = description.into();
        let content = &mut response["content"]["application/problem+json"];
        content["schema"] = json!({ "$ref": "#/components/schemas/Problem" });
        content["examples"][kind] = json!({ "$ref": format!("#/components/examples/{kind}") });
        for name in match kind {
            "api-key-required" | "api-key-invalid" | "scope-required" => &["WWW-Authenticate"][..],
            "too-many-requests" | "overloaded" | "unavailable" | "not-ready" => &["Retry-After"],
            "content-encoding" => &["Accept-Encoding"],
            _ => &[],
        } {
            add_header(response, name);
        }
    }
    for response in operation["responses"]
        .as_object_mut()
        .expect("responses")
        .values_mut()
    {
        add_header(response, "X-Request-Id");
        if is_guarded {
            add_header(response, "RateLimit");
            add_header(response, "RateLimit-Policy");
        }
    }
}

fn add_header(response: &mut Value, name: &str) {
    response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
}

/// Returns the headers that several operations share.
fn headers() -> Value {
    let header = |description: &str, example: &str| json!({ "description": description, "schema": { "type": "string" }, "example": example });
    json!({
        "X-Request-Id": header(
            "Id of the request in the server's log: the one sent in this header, or a generated one.",
            "7d3f0c6a5b1e4f2c9a8b7c6d5e4f3a2b",
        ),
        "RateLimit": header(
            "If requests are limited: requests left (`r`), and seconds until the full limit is available again (`t`). Each API \
             key has its own limit; without keys, each address.",
            "\"default\";r=87;t=1",
        ),
        "RateLimit-Policy": header(
            "If requests are limited: the limit is `q` requests in `w` seconds.",
            "\"default\";q=100;w=1",
        ),
        "Accept-Encoding": header("Accepted encoding of a body: `identity`, which is none.", "identity"),
        "Retry-After": header("Seconds after which to retry the request. Nothing was done.", "1"),
        "WWW-Authenticate": header("Missing or insufficient credentials (RFC 6750).", "Bearer realm=\"ticketing\""),
    })
}

fn problem_schema() -> Value {
    let fact = |kind: &str, description: &str, example: Value| json!({ "type": kind, "description": description, "examples": [example] });
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457). Which of the other members are present depends on `type`.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {
                "type": "string", "description": "Type of the problem. Never changes.",
                "pattern": "^/problems/[a-z-]+$", "examples": ["/problems/not-enough-seats"],
            },
            "title": {
                "type": "string", "description": "Summary of the problem type.", "examples": ["Not enough seats"],
            },
            "status": {
                "type": "integer", "description": "HTTP status code.", "minimum": 400, "maximum": 599,
                "examples": [409],
            },
            "detail": {
                "type": "string", "description": "Explanation of this occurrence, for people.",
                "examples": ["Show 1 has 2 seats available, 3 were requested."],
            },
            "showId": fact("integer", "Id of the show.", json!(7)),
            "bookingId": fact("integer", "Id of the booking.", json!(1042)),
            "requested": fact("integer", "Number of requested seats.", json!(3)),
            "available": fact("integer", "For `not-enough-seats`: number of available seats.", json!(2)),
            "maxSeatsPerBooking": fact("integer", "For `too-many-seats`: maximum number of seats in a booking of the show.", json!(10)),
            "maxSeatsPerUser": fact("integer", "For `user-limit-reached`: maximum number of seats of one user in the show.", json!(20)),
            "taken": fact("integer", "For `user-limit-reached`: number of seats that the user has.", json!(18)),
            "expiresAt": fact("string", "For `hold-expired`: deadline of the hold.", json!("2026-11-23T20:02:00.123456Z")),
            "extendableUntil": fact("string", "For `extension-too-long`: latest possible deadline.", json!("2026-11-23T20:15:00.123456Z")),
            "maxSeconds": fact("integer", "For `extension-too-long`: seconds from now to the latest possible deadline.", json!(780)),
            "currentStatus": fact("string", "For `booking-changed`: current status of the booking.", json!("CONFIRMED")),
            "scope": fact("string", "For `scope-required`: scope that the API key lacks.", json!("bookings:write")),
            "maxBytes": fact("integer", "For `body-too-large`: maximum length of a body.", json!(MAX_BODY_BYTES)),
            "errors": {
                "type": "array", "description": "For `invalid`: each invalid value. For `malformed`: the malformed query parameter, if there is one.",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": {
                            "type": "string", "examples": ["/numberOfSeats"],
                            "description": "Location of the error: a JSON pointer into the body, or the name of a query parameter.",
                        },
                        "detail": {
                            "type": "string", "examples": ["lower than 1"], "description": "Description of the error.",
                        },
                    },
                },
            },
        },
    })
}

/// Content security policy of the page: nothing from other origins, but inline styles and images.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

/// Returns the routes `/openapi.json` and `/docs`, a page to read and try the API.
///
/// All assets of the page are embedded in the binary.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::state::AppState;

    /// Returns the paths of a router from its debug output: axum exposes them nowhere else.
    fn paths(router: &Router<Arc<AppState>>) -> BTreeSet<String> {
        format!("{router:?}")
            .split('"')
            .filter(|part| part.starts_with('/') && part.len() > 1 && !part.contains("__private"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_fact_of_a_problem_is_described() {
        let described = problem_schema()["properties"].take();
        for problem in Problem::one_of_each() {
            for member in problem.document().as_object().unwrap().keys() {
                assert!(
                    !described[member].is_null(),
                    "{member} of {}",
                    problem.kind()
                );
            }
        }
    }

    #[test]
    fn every_route_is_described_but_those_of_the_description() {
        let own: BTreeSet<String> = ["/docs", "/docs/", "/docs/{*rest}", "/openapi.json"]
            .map(str::to_owned)
            .into();
        assert_eq!(paths(&pages()), own);
        let described = document()["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let all = paths(&Router::from(routes::documented()).merge(pages()));
        assert_eq!(&all - &own, described);
    }
}
