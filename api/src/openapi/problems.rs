//! Responses for the problems of each operation.

use serde_json::{Map, Value, json};

use crate::config::MAX_BODY_BYTES;

/// Problems of every operation with parameters or a body.
const OF_INPUTS: [&str; 1] = ["malformed"];

/// Problems of every operation with a body.
const OF_BODIES: [&str; 4] = ["body-too-large", "not-json", "content-encoding", "invalid"];

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

/// Adds a response to an operation for each status of its problems.
///
/// Its own problems are in the extension `x-problems` of its route, by the last part of `type`.
/// This function adds those that follow from its parameters, its body and its scope.
pub(super) fn add(operation: &mut Value, problems: &Map<String, Value>) {
    let own = operation
        .as_object_mut()
        .expect("an operation")
        .remove("x-problems");
    let is_guarded = operation["security"].is_array();
    let own: Vec<String> = match own {
        Some(kinds) => serde_json::from_value(kinds).expect("a list of types"),
        None if is_guarded => panic!("{} has no x-problems", operation["operationId"]),
        None => Vec::new(),
    };
    let has_body = operation["requestBody"].is_object();
    let of_body = OF_BODIES.into_iter().filter(|_| has_body);
    let has_input = has_body || operation["parameters"].is_array();
    let of_input = OF_INPUTS.into_iter().filter(|_| has_input);
    let guarded = GUARDED.into_iter().filter(|_| is_guarded);
    let kinds: Vec<&str> = of_input
        .chain(of_body)
        .chain(own.iter().map(String::as_str))
        .chain(guarded)
        .chain(ALWAYS)
        .collect();
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

/// Returns the schema of a problem, with every fact of any of them.
pub(super) fn schema() -> Value {
    let fact = |kind: &str, description: &str, example: Value| json!({ "type": kind, "description": description, "examples": [example] });
    let nullable_fact = |kind: &str, description: &str, example: Value| json!({ "type": [kind, "null"], "description": description, "examples": [example] });
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
            "currentStatus": fact("string", "For `booking-changed`: current status of the booking. For `wrong-show-status`: that of the show.", json!("CONFIRMED")),
            "showStatus": fact("string", "For `not-on-sale`: status of the show.", json!("ON_SALE")),
            "salesStart": nullable_fact("string", "For `not-on-sale`: instant from which seats can be taken, if there is one.", json!("2026-12-01T10:00:00Z")),
            "salesEnd": nullable_fact("string", "For `not-on-sale`: instant from which seats can no longer be taken, if there is one.", json!("2026-12-10T09:30:00Z")),
            "booked": fact("integer", "For `fewer-seats-booked`: number of seats that the booking has.", json!(2)),
            "inUse": fact("integer", "For `seats-in-use`: number of seats that pending and confirmed bookings have.", json!(12)),
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
