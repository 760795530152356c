//! API keys: authentication, scopes, changes and revocation.

mod server;

use std::sync::Arc;

use api::config::Config;
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use shared::api_key::{self, Change, NewApiKey, Scope};
use testing::{TestDatabase, assert_seats_conserved, eventually};

use crate::server::{Api, alice, parse, the_show};

fn with_keys(config: &mut Config) {
    config.callers.require_keys = true;
}

/// Creates an API key. A running api accepts it within two seconds.
async fn make_key(db: &TestDatabase, name: &str, scopes: &[Scope]) -> String {
    let new = NewApiKey {
        name,
        scopes,
        requests_per_second: None,
    };
    api_key::create(&db.pool, &new).await.unwrap().reveal()
}

/// Starts an api that requires API keys, and returns it with a key that has these scopes.
async fn start(scopes: &[Scope]) -> (Api, String) {
    let db = Arc::new(TestDatabase::new().await);
    let key = make_key(&db, "test", scopes).await;
    (Api::serve(db, with_keys), key)
}

async fn send(api: &Api, key: &str, method: Method, path: &str, body: &Value) -> Response {
    let request = api.request(method, path).bearer_auth(key).json(body);
    request.send().await.unwrap()
}

fn challenge(response: &Response) -> &str {
    response.headers()[header::WWW_AUTHENTICATE]
        .to_str()
        .unwrap()
}

const ALL: [Scope; 4] = [
    Scope::ShowsRead,
    Scope::ShowsWrite,
    Scope::BookingsRead,
    Scope::BookingsWrite,
];

/// Tests each operation of the OpenAPI document with the scope that the document requires.
#[tokio::test]
async fn each_operation_needs_the_scope_that_is_described_and_no_other() {
    let (api, every) = start(&ALL).await;
    send(&api, &every, Method::POST, "/shows", &the_show()).await;
    let document = api::openapi::document();
    let mut guarded = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{id}", "1");
            let scope = &operation["security"][0]["apiKey"][0];
            let without = api.request(method.clone(), &path).send().await.unwrap();
            if scope.is_null() {
                assert!(path.starts_with("/health/"), "{method} {path} is open");
                assert_eq!(without.status(), StatusCode::OK);
                continue;
            }
            guarded += 1;
            let scope = scope.as_str().unwrap();
            assert_eq!(
                without.status(),
                StatusCode::UNAUTHORIZED,
                "{method} {path}"
            );
            assert_eq!(challenge(&without), "Bearer realm=\"ticketing\"");
            assert_eq!(parse(without).await.1["type"], "/problems/api-key-required");

            // A key with all other scopes. The body is invalid, but the api does not read it
            // without the scope.
            let others: Vec<Scope> = ALL
                .into_iter()
                .filter(|other| other.to_string() != scope)
                .chain([Scope::Admin])
                .collect();
            assert_eq!(others.len(), 4);
            let other = make_key(&api.db, &format!("{method} {path}"), &others).await;
            eventually("the new key is known", async || {
                let answer = send(&api, &other, method.clone(), &path, &json!(0)).await;
                answer.status() == StatusCode::FORBIDDEN
            })
            .await;
            let refused = send(&api, &other, method.clone(), &path, &json!(0)).await;
            let insufficient = format!(
                "Bearer realm=\"ticketing\", error=\"insufficient_scope\", scope=\"{scope}\""
            );
            assert_eq!(challenge(&refused), insufficient);
            let (_, problem) = parse(refused).await;
            assert_eq!(problem["type"], "/problems/scope-required");
            assert_eq!(problem["scope"], scope);

            let allowed = send(&api, &every, method.clone(), &path, &json!({})).await;
            let status = allowed.status();
            let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
            assert!(!is_refused, "{method} {path}: {status}");
        }
    }
    assert_eq!(guarded, 16);
    let (_, shows) = parse(send(&api, &every, Method::GET, "/shows", &json!({})).await).await;
    assert_eq!(
        shows.as_array().unwrap().len(),
        1,
        "no other show was created"
    );
}

#[tokio::test]
async fn what_is_no_valid_key_is_refused() {
    let (api, key) = start(&ALL).await;
    let (right, secret) = key.split_at(key.len() - 64);
    let wrong = [
        String::new(),
        "x".into(),
        right.into(),
        format!("{right}{}", "0".repeat(64)),
        format!("tkt_999_{secret}"),
        format!("{key}00"),
    ];
    for credentials in wrong.iter().map(|key| format!("Bearer {key}")).chain([
        key.clone(),
        format!("Basic {key}"),
        String::new(),
    ]) {
        let request = api.request(Method::GET, "/shows");
        let request = request.header(header::AUTHORIZATION, &credentials);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{credentials}");
        assert_eq!(
            challenge(&response),
            "Bearer realm=\"ticketing\", error=\"invalid_token\""
        );
        assert_eq!(parse(response).await.1["type"], "/problems/api-key-invalid");
    }
    let response = api.request(Method::GET, "/shows");
    let response = response.header(header::AUTHORIZATION, format!("bearer  {key}"));
    assert_eq!(response.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_revoked_key_is_soon_refused_by_every_api() {
    let (api, key) = start(&ALL).await;
    let another = api.another_with(with_keys);
    for api in [&api, &another] {
        let answer = send(api, &key, Method::GET, "/shows", &json!({})).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    api_key::revoke(&api.db.pool, "test").await.unwrap();
    for api in [&api, &another] {
        eventually("the key is refused", async || {
            let answer = send(api, &key, Method::GET, "/shows", &json!({})).await;
            answer.status() == StatusCode::UNAUTHORIZED
        })
        .await;
    }
    // The name of a revoked key can be used again.
    let key = make_key(&api.db, "test", &ALL).await;
    eventually("the new key is known", async || {
        let answer = send(&another, &key, Method::GET, "/shows", &json!({})).await;
        answer.status() == StatusCode::OK
    })
    .await;
    assert!(api_key::revoke(&api.db.pool, "none").await.is_err());
}

#[tokio::test]
async fn idempotency_keys_belong_to_their_caller() {
    let (api, one) = start(&ALL).await;
    send(&api, &one, Method::POST, "/shows", &the_show()).await;
    let two = make_key(&api.db, "two", &ALL).await;
    eventually("the new key is known", async || {
        let answer = send(&api, &two, Method::GET, "/shows", &json!({})).await;
        answer.status() == StatusCode::OK
    })
    .await;
    let book = async |key: &str, seats: i64| {
        let request = api.request(Method::POST, "/bookings").bearer_auth(key);
        let request = request.header("Idempotency-Key", "same");
        parse(request.json(&alice(seats)).send().await.unwrap()).await
    };
    let (status, first) = book(&one, 1).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, second) = book(&two, 2).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(book(&one, 1).await.1["id"], first["id"]);
    assert_eq!(book(&two, 2).await.1["id"], second["id"]);
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test]
async fn only_a_loopback_address_is_served_without_keys() {
    let api = Api::start().await;
    let serve = async |set: fn(&mut Config)| {
        let config = server::config(|config| {
            config.listen = "0.0.0.0:0".parse().unwrap();
            set(config);
        });
        let listeners = api::bind(&config).unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        stop.cancel();
        api::serve(
            listeners,
            server::own_connections(&api).await,
            &config,
            stop,
        )
        .await
    };
    let refused = serve(|_| ()).await.unwrap_err();
    assert!(
        refused.to_string().contains("ticketing key create"),
        "{refused}"
    );
    serve(|config| config.insecure = true).await.unwrap();
    make_key(&api.db, "one", &[Scope::Admin]).await;
    serve(|_| ()).await.unwrap();
}

#[tokio::test]
async fn a_changed_key_is_soon_known_by_every_api() {
    let (api, key) = start(&[Scope::ShowsRead]).await;
    let another = api.another_with(with_keys);
    let status = async |api: &Api, path: &str| {
        let answer = send(api, &key, Method::GET, path, &json!({})).await;
        let policy = answer.headers().get("ratelimit-policy").cloned();
        (answer.status(), policy)
    };
    assert_eq!(
        status(&api, "/bookings").await,
        (StatusCode::FORBIDDEN, None)
    );
    let change = Change {
        scopes: Some(&[Scope::BookingsRead]),
        requests_per_second: Some(Some(70)),
    };
    api_key::change(&api.db.pool, "test", change).await.unwrap();
    for api in [&api, &another] {
        eventually("its scopes and its rate have changed", async || {
            let (status, policy) = status(api, "/bookings").await;
            status == StatusCode::OK
                && policy.is_some_and(|policy| policy == "\"default\";q=70;w=1")
        })
        .await;
        assert_eq!(status(api, "/shows").await.0, StatusCode::FORBIDDEN);
    }
    let unknown = api_key::change(&api.db.pool, "nobody", Change::default()).await;
    assert!(unknown.is_err());
}

/// Repeating a confirmation, or extending a hold by nothing, changes nothing and reveals no user.
#[tokio::test]
async fn a_key_that_may_not_read_bookings_is_not_told_who_booked() {
    let (api, writer) = start(&[Scope::ShowsWrite, Scope::BookingsWrite]).await;
    let reader = make_key(&api.db, "both", &ALL).await;
    eventually("the new key is known", async || {
        let answer = send(&api, &reader, Method::GET, "/shows", &json!({})).await;
        answer.status() == StatusCode::OK
    })
    .await;
    send(&api, &writer, Method::POST, "/shows", &the_show()).await;
    let mut body = alice(2);
    body["reference"] = json!("Alice's");
    body["metadata"] = json!({ "of": "Alice" });
    let made = send(&api, &writer, Method::POST, "/bookings", &body).await;
    assert_eq!(parse(made).await.1["userName"], "Alice");
    for (path, body) in [
        ("/bookings/1/extend", json!({"seconds": 1})),
        ("/bookings/1/confirm", Value::Null),
        ("/bookings/1/cancel", Value::Null),
    ] {
        for (key, user_name) in [(&writer, Value::Null), (&reader, json!("Alice"))] {
            let answer = send(&api, key, Method::POST, path, &body).await;
            let (status, booking) = parse(answer).await;
            assert_eq!(status, StatusCode::OK, "{path}: {booking}");
            assert_eq!(booking["userName"], user_name, "{path}");
            let is_told = booking.to_string().contains("Alice's");
            assert_eq!(is_told, user_name.is_string(), "{booking}");
            assert_eq!(booking["metadata"].is_object(), is_told, "{booking}");
            assert_eq!(booking["id"], 1);
        }
    }
}
