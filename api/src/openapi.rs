//! The API's own description (`OpenAPI` 3.1): from the handlers, and from the problems that they answer with.

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
    response::Response,
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use crate::{problem::Problem, routes};

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ticketing",
        description = "Sells seats of shows. A booking is held for a while, and is confirmed in that time or its seats go \
                       back on sale.\n\nEvery error is an RFC 9457 problem: `type` never changes and is what to look at; \
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
const ALWAYS: [&str; 4] = ["unavailable", "timed-out", "outcome-unknown", "internal"];

/// What all but those for load balancers can answer with besides.
const GUARDED: [&str; 5] = [
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
    components["securitySchemes"]["apiKey"] = json!({
        "type": "http", "scheme": "bearer", "bearerFormat": "tkt_<id>_<secret>",
        "description": "Asked for unless the server listens on a loopback address, or is told to be open. `ticketing key create` \
                        makes one. Its scopes say what it may do; none includes another.",
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
    let guarded = GUARDED
        .into_iter()
        .filter(|_| operation["security"].is_array());
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
    }
}

fn problem_schema() -> Value {
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
            "errors": {
                "type": "array", "description": "Of `invalid`: each value that is out of bounds.",
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
