//! The API's own description (`OpenAPI` 3.1): from the handlers, and from the problems that they answer with.

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
    response::Response,
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use crate::{MAX_BODY_BYTES, problem::Problem, routes};

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ticketing",
        description = "Sells seats of shows.\n\nReserve seats with `POST /bookings`: they are held for a while (`secondsLeft`). \
                       Extend the hold when payment takes longer, and confirm the booking when it is paid; a hold that \
                       is not confirmed in time is `FAILED`, and its seats go back on sale. Cancel a booking to give its \
                       seats back earlier, or after it was sold.\n\nWhen an answer does not arrive, send the request \
                       again: reserving and creating with the same `Idempotency-Key`, everything else as it is. After \
                       429 or 503 with `Retry-After`, wait for so many seconds first.\n\nEvery error is an RFC 9457 problem: `type` never changes and is what to look at; \
                       the other members say what happened this time.",
    ),
    tags(
        (name = "shows", description = "What has seats to sell."),
        (name = "bookings", description = "Some seats of one show, for one user."),
        (name = "health", description = "For load balancers and orchestrators."),
    ),
)]
struct Described;

/// The problems that each operation answers with, by the last part of their `type`, besides those that all do.
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

/// What every operation can answer with.
const ALWAYS: [&str; 5] = [
    "unavailable",
    "not-ready",
    "timed-out",
    "outcome-unknown",
    "internal",
];

/// What all but those for load balancers can answer with besides.
const GUARDED: [&str; 7] = [
    "cross-origin",
    "unknown-host",
    "api-key-required",
    "api-key-invalid",
    "scope-required",
    "too-many-requests",
    "overloaded",
];

/// The document.
///
/// # Panics
///
/// When a handler has no entry among the problems above: a defect that each test would find.
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
        "description": "Who runs the server makes one with `ticketing key create`. A server that only its own machine can reach \
                        asks for none, unless it is told to. Its scopes say what it may do; none includes another.",
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

/// A parameter or a header that may be left out is a text or a number all the same, and never null.
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

/// A response for each status with which the operation answers when something is wrong.
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

/// The headers that are not of one operation.
fn headers() -> Value {
    let header = |description: &str, example: &str| json!({ "description": description, "schema": { "type": "string" }, "example": example });
    json!({
        "X-Request-Id": header(
            "Names this request in the server's log: what you sent in this header, or one made up.",
            "7d3f0c6a5b1e4f2c9a8b7c6d5e4f3a2b",
        ),
        "RateLimit": header(
            "Where requests are limited: how many are left (`r`), and in how many seconds all are there again (`t`). Each key \
             has its own; without keys, each address.",
            "\"default\";r=87;t=1",
        ),
        "RateLimit-Policy": header(
            "Where requests are limited: how many (`q`) are allowed in how many seconds (`w`).",
            "\"default\";q=100;w=1",
        ),
        "Accept-Encoding": header("How a body can be encoded: `identity`, which is as it is.", "identity"),
        "Retry-After": header("When nothing was done, and it can be sent again: in how many seconds.", "1"),
        "WWW-Authenticate": header("What is missing (RFC 6750).", "Bearer realm=\"ticketing\""),
    })
}

fn problem_schema() -> Value {
    let fact = |kind: &str, description: &str, example: Value| json!({ "type": kind, "description": description, "examples": [example] });
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457), and beside these members the facts that a program can act on.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {
                "type": "string", "description": "Which problem it is. Never changes.",
                "pattern": "^/problems/[a-z-]+$", "examples": ["/problems/not-enough-seats"],
            },
            "title": {
                "type": "string", "description": "The problem in a few words.", "examples": ["Not enough seats"],
            },
            "status": {
                "type": "integer", "description": "The HTTP status.", "minimum": 400, "maximum": 599,
                "examples": [409],
            },
            "detail": {
                "type": "string", "description": "What happened this time, for people.",
                "examples": ["Show 1 has 2 seats available, 3 were requested."],
            },
            "showId": fact("integer", "The show.", json!(7)),
            "bookingId": fact("integer", "The booking.", json!(1042)),
            "requested": fact("integer", "How many seats were asked for.", json!(3)),
            "available": fact("integer", "Of `not-enough-seats`: how many there are.", json!(2)),
            "maxSeatsPerBooking": fact("integer", "Of `too-many-seats`: how many a booking of the show can have.", json!(10)),
            "maxSeatsPerUser": fact("integer", "Of `user-limit-reached`: how many a user of the show can have.", json!(20)),
            "taken": fact("integer", "Of `user-limit-reached`: how many the user has.", json!(18)),
            "expiresAt": fact("string", "Of `hold-expired`: when the hold ended.", json!("2026-11-23T20:02:00.123456Z")),
            "extendableUntil": fact("string", "Of `extension-too-long`: the latest deadline.", json!("2026-11-23T20:15:00.123456Z")),
            "maxSeconds": fact("integer", "Of `extension-too-long`: how many seconds from now that is.", json!(780)),
            "currentStatus": fact("string", "Of `booking-changed`: the booking's status.", json!("CONFIRMED")),
            "scope": fact("string", "Of `scope-required`: what the key lacks.", json!("bookings:write")),
            "maxBytes": fact("integer", "Of `body-too-large`: how long a body can be.", json!(MAX_BODY_BYTES)),
            "errors": {
                "type": "array", "description": "Of `invalid`: each value that is not as it has to be. Of `malformed`: the query parameter that is not, if it is one.",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": {
                            "type": "string", "examples": ["/numberOfSeats"],
                            "description": "Where: a JSON pointer into the body, or the name of a query parameter.",
                        },
                        "detail": {
                            "type": "string", "examples": ["lower than 1"], "description": "What is wrong with it.",
                        },
                    },
                },
            },
        },
    })
}

/// The page takes everything from here; it makes styles and small pictures itself.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

/// `GET /openapi.json`, and `GET /docs`: a page to read it and to try it, whose parts are all in this program.
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
    use crate::AppState;

    /// axum tells the paths of a router nowhere else.
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
        let all = paths(&crate::routes::all());
        assert_eq!(&all - &own, described);
    }
}
