//! The OpenAPI 3.1 document, made from the handlers and their problems.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::problems;
use crate::{input::schema::merge_inlined, output::problem_examples::problem_examples, routes};

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
                       `Idempotency-Key`, `POST /bookings/bulk` with the same `idempotencyKey` of each booking, \
                       everything else unchanged. After a 429 or 503 with `Retry-After`, wait for \
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

/// Returns the OpenAPI document.
///
/// # Panics
///
/// Panics if a route names a problem without an example, a bug that every test would find.
#[must_use]
pub fn document() -> Value {
    let mut handlers = routes::documented().into_openapi();
    handlers.merge(Described::openapi());
    handlers.info = Described::openapi().info;
    let mut document = serde_json::to_value(handlers).expect("a document is JSON");
    let examples: Map<String, Value> = problem_examples()
        .iter()
        .map(|problem| (problem.kind().to_owned(), problem.document()))
        .collect();
    forget_null(&mut document["paths"]);
    merge_inlined(&mut document);
    for item in document["paths"]
        .as_object_mut()
        .expect("paths")
        .values_mut()
    {
        for operation in item.as_object_mut().expect("a path").values_mut() {
            problems::add(operation, &examples);
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
    components["schemas"]["Problem"] = problems::schema();
    components["headers"] = headers();
    components["securitySchemes"]["apiKey"] = json!({
        "type": "http", "scheme": "bearer", "bearerFormat": "tkt_<id>_<secret>",
        "description": "API key. The operator of the server creates one with `ticketing key create`. A server on a loopback \
                        address requires none, unless configured to. A key has scopes; no scope includes another.",
    });
    components["examples"] = examples
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
