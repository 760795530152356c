//! The OpenAPI document describes all that the API does, and nothing else.

mod server;

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;

use crate::server::Api;

/// Returns the method, path and description of all operations.
fn operations(document: &Value) -> Vec<(Method, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| {
                let method = method.to_uppercase().parse().unwrap();
                (method, path.as_str(), operation)
            })
        })
        .collect()
}

/// Clients are generated from the committed file.
#[test]
fn the_committed_document_is_current() {
    let committed: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    assert!(
        committed == api::openapi::document(),
        "regenerate it: cargo run -- openapi > api/openapi.json"
    );
}

/// A test beside the document checks that its paths are those of the router.
#[tokio::test]
async fn every_path_has_the_methods_that_the_document_says() {
    let document = api::openapi::document();
    let api = Api::start().await;
    for path in document["paths"].as_object().unwrap().keys() {
        let said: BTreeSet<String> = operations(&document)
            .iter()
            .filter(|(_, of, _)| of == path)
            .map(|(method, ..)| method.to_string())
            .collect();
        let unsaid = api.request(Method::DELETE, &path.replace("{id}", "1"));
        let unsaid = unsaid.send().await.unwrap();
        assert_eq!(unsaid.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = unsaid.headers()[header::ALLOW].to_str().unwrap();
        let allowed: BTreeSet<String> = allowed
            .split(',')
            .map(|method| method.trim().to_owned())
            // axum allows HEAD with each GET.
            .filter(|method| method != "HEAD")
            .collect();
        assert_eq!(allowed, said, "{path}");
    }
}

#[test]
fn every_field_has_a_description_an_example_and_bounds() {
    let document = api::openapi::document();
    let mut fields: Vec<(String, &Value)> = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name}");
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            fields.push((format!("{name}.{field}"), schema));
        }
    }
    for (_, path, operation) in operations(&document) {
        assert!(operation["summary"].is_string(), "{path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = format!("{path} {}", parameter["name"]);
            assert!(parameter["description"].is_string(), "{name}");
            let schema = &parameter["schema"];
            let has_example = !parameter["example"].is_null() || !schema["enum"].is_null();
            assert!(has_example, "{name} has no example");
            assert!(is_bounded(schema), "{name} has no bounds: {schema}");
        }
    }
    assert!(fields.len() > 20);
    for (name, field) in fields {
        // Of a nullable object, the first alternative.
        let schema = match &field["oneOf"][0] {
            object if object["type"] == "object" => object,
            _ => field,
        };
        if schema["$ref"].is_string() || schema["type"] == "array" {
            continue;
        }
        assert!(field["description"].is_string(), "{name}");
        assert!(schema["examples"].is_array(), "{name} has no example");
        if !name.starts_with("Problem.") && !name.starts_with("Health.") {
            assert!(is_bounded(schema), "{name} has no bounds: {schema}");
        }
    }
}

/// Returns whether a schema bounds the range of a number, the length or form of a string or the members of
/// an object, or is of a boolean.
fn is_bounded(schema: &Value) -> bool {
    let has = |key: &str| !schema[key].is_null();
    has("minimum") && (has("maximum") || schema["format"] == "int64")
        || has("maxLength")
        || has("pattern")
        || has("enum")
        || has("maxProperties")
        || schema["type"] == "boolean"
        || schema["format"] == "date-time"
        || schema["oneOf"][1]["$ref"].is_string()
}

/// Returns the names of the schemas of successful responses.
fn schemas_of_answers(document: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, _, operation) in operations(document) {
        for response in operation["responses"].as_object().unwrap().values() {
            let schema = &response["content"]["application/json"]["schema"];
            for reference in [&schema["$ref"], &schema["items"]["$ref"]] {
                let name = reference.as_str().and_then(|name| name.rsplit('/').next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names
}

/// A nullable member is always present: a generated client need not distinguish null from absent.
#[test]
fn the_members_of_an_answer_are_required_but_for_those_that_most_have_not() {
    let document = api::openapi::document();
    let answers = schemas_of_answers(&document);
    assert!(answers.len() >= 3, "{answers:?}");
    let (mut can_be_null, mut can_be_missing) = (Vec::new(), Vec::new());
    for name in answers {
        let schema = &document["components"]["schemas"][&name];
        let properties = schema["properties"].as_object().unwrap();
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member.as_str().unwrap())
            .collect();
        let all: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        can_be_missing.extend(
            all.difference(&required)
                .map(|member| format!("{name}.{member}")),
        );
        for (member, schema) in properties {
            if schema["type"]
                .as_array()
                .is_some_and(|types| types.contains(&"null".into()))
            {
                can_be_null.push(format!("{name}.{member}"));
            }
        }
    }
    let expected = [
        "Booking.resolvedAt",
        "Booking.secondsLeft",
        "ChangedBooking.resolvedAt",
        "ChangedBooking.secondsLeft",
        "ChangedBooking.userName",
        "Show.maxSeatsPerUser",
        "Show.salesEnd",
        "Show.salesStart",
    ];
    assert_eq!(can_be_null, expected);
    let expected = [
        "Booking.from",
        "Booking.metadata",
        "Booking.reference",
        "Booking.releasedSeats",
        "ChangedBooking.from",
        "ChangedBooking.metadata",
        "ChangedBooking.reference",
        "ChangedBooking.releasedSeats",
        "Show.cancellation",
        "Show.metadata",
        "Show.reference",
    ];
    assert_eq!(can_be_missing, expected);
}

#[test]
fn every_problem_is_listed_with_an_example() {
    let document = api::openapi::document();
    let text = document["paths"].to_string();
    let examples = document["components"]["examples"].as_object().unwrap();
    assert!(examples.len() > 20);
    for (kind, example) in examples {
        assert_eq!(example["value"]["type"], format!("/problems/{kind}"));
        assert!(example["value"]["detail"].is_string());
        // No route answers with these two.
        if !["no-such-route", "method-not-allowed"].contains(&kind.as_str()) {
            let reference = format!("#/components/examples/{kind}");
            assert!(
                text.contains(&reference),
                "no operation answers with {kind}"
            );
        }
    }
}

#[tokio::test]
async fn the_page_to_try_it_comes_from_the_program_alone() {
    let api = Api::start().await;
    let (status, served) = api.get("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(served, api::openapi::document());
    let page = api.request(Method::GET, "/docs/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|text| {
            [".js", ".css", ".png"]
                .iter()
                .any(|end| text.ends_with(end))
        })
        .collect();
    assert!(parts.len() >= 4, "{page}");
    for part in parts {
        assert!(!part.contains("//"), "{part} is on another server");
        let path = format!("/docs/{}", part.trim_start_matches("./"));
        let part = api.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::OK, "{path}");
    }
}
