//! The dashboard, in a real browser, against the real system.

mod browser;
mod system;

use std::{env, path::PathBuf};

use axum::{Router, body::to_bytes, extract::Request, response::Html};
use serde_json::{Value, json};
use sqlx::PgPool;
use testing::{DataDir, eventually, execute};
use tokio::net::TcpListener;

use crate::{
    browser::Browser,
    system::{Up, stress, stress_while, ticketing},
};

/// A running system, and a browser for its dashboard.
struct Duty {
    up: Up,
    browser: Browser,
    pool: PgPool,
    _data: DataDir,
}

impl Duty {
    async fn begin(name: &str) -> Option<Self> {
        let browser = Browser::start().await?;
        let data = DataDir::new(name);
        let up = Up::start(&data.0).await;
        let pool = PgPool::connect(&up.database).await.unwrap();
        Some(Self {
            up,
            browser,
            pool,
            _data: data,
        })
    }

    async fn look_at(&self, section: &str) {
        let address = format!("{}/#{section}", self.up.admin);
        self.browser.open(&address).await;
    }

    async fn a_show(&self, name: &str) {
        let show = json!({"name": name, "startTime": "2025-12-10 10:00:00", "seats": 40, "holdSeconds": 60});
        self.post("/shows", &show).await;
    }

    async fn book(&self, show: usize, seats: i32) {
        let booking = json!({"showId": show, "userName": "Alice", "numberOfSeats": seats});
        self.post("/bookings", &booking).await;
    }

    async fn post(&self, path: &str, body: &Value) {
        let client = reqwest::Client::new();
        let request = client.post(format!("{}{path}", self.up.api)).json(body);
        let status = request.send().await.unwrap().status();
        assert!(status.is_success(), "{path}: {status}");
    }
}

/// Inserts a job whose payload no worker can decode.
const BAD_JOB: &str =
    "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at)
     VALUES ('01M86M84VCBXD31B1B5QXRQWFS', 'expire-bookings', 'nonsense', 'Pending', 0, 12, now())";

#[tokio::test]
async fn a_shows_bar_moves_while_it_sells() {
    let Some(duty) = Duty::begin("dashboard-sales").await else {
        return;
    };
    let browser = &duty.browser;
    duty.look_at("sales").await;
    browser
        .until("#verdict", |text| text == "All is well")
        .await;
    let confirmed = "#shows tbody tr td:nth-child(4)";
    let width = "return document.querySelector('#shows .bar .confirmed')?.style.width ?? ''";
    let look = async {
        let first = browser
            .until(confirmed, |text| !text.is_empty() && text != "0")
            .await;
        let first_width = browser.run(width).await;
        let second = browser.until(confirmed, |text| text != first).await;
        assert_ne!(first, second);
        eventually("the bar moves", async || {
            browser.run(width).await != first_width
        })
        .await;
        browser
            .until("#tiles div:first-child dd", |rate| rate != "0")
            .await;
    };
    let args = ["mixed", "--connections", "8", "--duration", "3"];
    let (runs, ()) = stress_while(&duty.up.api, &args, look).await;
    for (status, report) in runs {
        assert_eq!(status, Some(0), "{report}");
    }
    duty.browser.finish().await;
}

#[tokio::test]
async fn a_failing_job_tells_why_and_is_retried_by_a_click() {
    let Some(duty) = Duty::begin("dashboard-jobs").await else {
        return;
    };
    let browser = &duty.browser;
    execute(&duty.pool, BAD_JOB).await;
    duty.look_at("jobs?state=dead").await;
    browser
        .until("#verdict", |text| text.contains("1 dead job"))
        .await;
    browser
        .until("#jobs-list td.error", |text| {
            text.contains("does not decode")
        })
        .await;
    browser.click("#jobs-list button.link").await;
    let error = browser
        .until("#job pre.error", |text| !text.is_empty())
        .await;
    assert!(error.contains("the payload does not decode"), "{error}");
    assert!(
        browser.text("#job-body").await.contains("nonsense"),
        "the payload is shown"
    );

    execute(
        &duty.pool,
        r#"UPDATE apalis.jobs SET job = '{"bookingIds":[]}'"#,
    )
    .await;
    browser.click("#job [data-action=retry]").await;
    let question = browser.say_yes().await;
    assert!(question.contains("run again now"), "{question}");
    let done = "SELECT status = 'Done' FROM apalis.jobs";
    eventually("the job is done", async || {
        sqlx::query_scalar(done)
            .fetch_one(&duty.pool)
            .await
            .unwrap()
    })
    .await;
    browser.click("#job .close").await;
    browser
        .until("#verdict", |text| text == "All is well")
        .await;
    browser.element("#jobs-empty").await;
    duty.look_at("queue").await;
    browser
        .until("#interventions td:nth-child(3)", |text| text == "retry")
        .await;
    duty.browser.finish().await;
}

#[tokio::test]
async fn all_jobs_that_match_are_changed_at_once_after_a_question() {
    let Some(duty) = Duty::begin("dashboard-bulk").await else {
        return;
    };
    let browser = &duty.browser;
    execute(
        &duty.pool,
        r#"INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at)
           SELECT '01M86M84VCBXD31B1B5QXRQ' || (100 + n), 'expire-bookings', '{"bookingIds":[]}', 'Pending', 0, 12,
                  now() + interval '1 hour'
           FROM generate_series(1, 250) AS n"#,
    )
    .await;
    duty.look_at("jobs?state=scheduled").await;
    let rows = "return document.querySelectorAll('#jobs-list tbody tr').length";
    eventually("a page is shown", async || browser.run(rows).await == 100).await;
    browser.click("#jobs-more").await;
    eventually("two pages are shown", async || {
        browser.run(rows).await == 200
    })
    .await;
    browser.click("#jobs-bulk [data-bulk=cancel]").await;
    let question = browser.say_yes().await;
    assert!(
        question.starts_with("250 scheduled jobs will be marked dead and not run"),
        "{question}"
    );
    browser.element("#jobs-empty").await;
    browser
        .until("#verdict", |text| text.contains("250 dead jobs"))
        .await;
    duty.browser.finish().await;
}

#[tokio::test]
async fn pause_holds_jobs_and_resume_releases_them() {
    let Some(duty) = Duty::begin("dashboard-pause").await else {
        return;
    };
    let browser = &duty.browser;
    duty.look_at("queue").await;
    browser.click("#queues [data-does=pause]").await;
    let question = browser.say_yes().await;
    assert!(
        question.starts_with("Pause the queue expire-bookings?"),
        "{question}"
    );
    browser
        .until("#verdict", |text| {
            text.contains("expire-bookings is paused")
        })
        .await;
    execute(&duty.pool, BAD_JOB).await;
    let lag = "#queues td:nth-child(8)";
    browser
        .until(lag, |lag| {
            lag.trim_end_matches(" s").parse::<f64>().unwrap_or(0.0) > 1.0
        })
        .await;
    assert_eq!(
        browser.text("#queues td:nth-child(3)").await,
        "1",
        "the job stays due"
    );

    browser.click("#queues [data-does=resume]").await;
    browser.say_yes().await;
    browser
        .until("#queues td:nth-child(6)", |dead| dead == "1")
        .await;
    browser.element("#queues [data-does=pause]").await;
    duty.browser.finish().await;
}

#[tokio::test]
async fn what_users_write_is_shown_as_text() {
    let Some(duty) = Duty::begin("dashboard-text").await else {
        return;
    };
    let browser = &duty.browser;
    let name = "<script>hacked = 1</script><img src=x onerror='hacked = 2'><b>bold</b>";
    duty.a_show(name).await;
    let booking = json!({"showId": 1, "userName": name, "numberOfSeats": 1});
    duty.post("/bookings", &booking).await;
    duty.look_at("sales").await;
    browser
        .until("#shows td", |text| text.starts_with(name))
        .await;
    duty.look_at("jobs?bookingId=1").await;
    browser.click("#jobs-list button.link").await;
    browser
        .until("#job tbody td:nth-child(3)", |text| text == name)
        .await;
    assert_eq!(browser.run("return typeof hacked").await, "undefined");
    assert_eq!(
        browser
            .run("return document.querySelectorAll('img, b').length")
            .await,
        0
    );
    duty.browser.finish().await;
}

#[tokio::test]
async fn the_database_is_audited_by_a_click() {
    let Some(duty) = Duty::begin("dashboard-health").await else {
        return;
    };
    let browser = &duty.browser;
    duty.a_show("Morning Show").await;
    duty.look_at("health").await;
    browser.click("#audit").await;
    browser
        .until("#audit-result", |text| {
            text.starts_with("All invariants hold (1 shows")
        })
        .await;
    execute(&duty.pool, "UPDATE shows SET available_seats = 39").await;
    browser.click("#audit").await;
    browser
        .until("#audit-result", |text| text.starts_with("1 violated"))
        .await;
    browser
        .until("#invariants td:nth-child(3)", |text| {
            text.contains("show 1: 40 seats, 39 available")
        })
        .await;
    browser
        .until("#database", |text| text.contains("PostgreSQL"))
        .await;
    duty.browser.finish().await;
}

/// Returns the directory for the README's screenshots; `None` if none are to be made.
fn pictures() -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os("DASHBOARD_PICTURES")?);
    std::fs::create_dir_all(&directory).unwrap();
    Some(directory)
}

#[tokio::test]
async fn it_is_light_and_dark_and_fits_every_screen() {
    let Some(duty) = Duty::begin("dashboard-looks").await else {
        return;
    };
    let browser = &duty.browser;
    for (show, (name, sold, held)) in [
        ("Morning Show", 10, 4),
        ("Matinée", 25, 9),
        ("Evening Show", 38, 2),
    ]
    .into_iter()
    .enumerate()
    {
        duty.a_show(name).await;
        for (booking, seats) in [(2 * show + 1, sold), (2 * show + 2, held)] {
            duty.book(show + 1, seats).await;
            if seats == sold {
                duty.post(&format!("/bookings/{booking}/confirm"), &Value::Null)
                    .await;
            }
        }
    }
    execute(&duty.pool, BAD_JOB).await;
    let (_, sold) = stress(
        &duty.up.api,
        &["mixed", "--connections", "8", "--duration", "5"],
    )
    .await;
    assert_eq!(sold["errors"], json!({}), "{sold}");
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for (size, width, height) in [("wide", 1280, 800), ("narrow", 360, 780)] {
            browser.resize(width, height).await;
            for section in ["sales", "queue", "jobs", "health"] {
                duty.look_at(section).await;
                let shown = format!("#at-{section} tbody tr, #at-{section} dd");
                browser.element(&shown).await;
                let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
                assert_eq!(browser.run(overflow).await, 0, "{size} {section} overflows");
                if let Some(directory) = pictures() {
                    let name = format!("{section}-{size}-{scheme}.png");
                    browser.picture(&directory.join(name)).await;
                }
            }
        }
        grounds.push(
            browser
                .run("return getComputedStyle(document.body).backgroundColor")
                .await,
        );
    }
    assert_eq!(
        grounds,
        [json!("rgb(255, 255, 255)"), json!("rgb(18, 22, 28)")]
    );
    duty.browser.finish().await;
}

#[tokio::test]
async fn it_can_be_used_by_keyboard() {
    let Some(duty) = Duty::begin("dashboard-keys").await else {
        return;
    };
    let browser = &duty.browser;
    execute(&duty.pool, BAD_JOB).await;
    // Without a fragment, which would move the starting point of keyboard navigation.
    browser.open(&duty.up.admin).await;
    browser
        .until("#verdict", |text| text.contains("1 dead job"))
        .await;
    let press = async |keys: &str| {
        let focused = browser.driver.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    };
    let (tab, enter, escape) = ("\u{e004}", "\u{e007}", "\u{e00c}");
    for _ in 0..3 {
        press(tab).await;
    }
    press(enter).await;
    browser.element("#at-jobs").await;
    browser.element("#jobs-list button.link").await;
    let focused = "return document.activeElement.className";
    for _ in 0..12 {
        if browser.run(focused).await == "link" {
            break;
        }
        press(tab).await;
    }
    press(enter).await;
    browser.element("#job").await;
    press(escape).await;
    eventually("the dialog is closed", async || {
        browser
            .run("return document.getElementById('job').open")
            .await
            == false
    })
    .await;
    duty.browser.finish().await;
}

#[tokio::test]
async fn where_a_key_is_asked_for_the_page_asks_for_it() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let data = DataDir::new("dashboard-login");
    let up = Up::start_with(&data.0, &["--require-keys"]).await;
    let create = ticketing()
        .args(["key", "create", "--name", "operations", "--scope", "admin"])
        .env("DATABASE_URL", &up.database)
        .output()
        .await
        .unwrap();
    let key = String::from_utf8(create.stdout).unwrap();
    let key = key
        .split_whitespace()
        .find(|word| word.starts_with("tkt_"))
        .expect("a key")
        .to_owned();
    // An api reads the keys once a second.
    let client = reqwest::Client::new();
    eventually("the key is known", async || {
        let asked = client.get(format!("{}/queues", up.admin)).bearer_auth(&key);
        asked.send().await.unwrap().status() == 200
    })
    .await;
    browser.open(&up.admin).await;
    let enter = async |key: &str| {
        browser
            .element("#login input")
            .await
            .send_keys(key)
            .await
            .unwrap();
        browser.click("#login button").await;
    };
    enter("tkt_1_wrong").await;
    browser
        .until("#login-text", |text| {
            text.contains("The API key is unknown or revoked")
        })
        .await;
    enter(&key).await;
    browser
        .until("#verdict", |text| text == "All is well")
        .await;
    browser.click("nav a[href='#queue']").await;
    browser.click("#queues [data-does=pause]").await;
    browser.say_yes().await;
    browser
        .until("#interventions td:nth-child(2)", |text| {
            text == "operations"
        })
        .await;
    // The browser itself logs each 401.
    let log = browser.driver.browser_log().await.unwrap();
    assert!(
        log.iter().all(|entry| format!("{entry:?}").contains("401")),
        "{log:?}"
    );
    browser.quit().await;
}

/// Serves the dashboard under a prefix, as a proxy in front of several services does.
async fn proxy(admin: &str) -> String {
    const PREFIX: &str = "/ops/duty";
    let (admin, client) = (admin.to_owned(), reqwest::Client::new());
    let forward = move |request: Request| {
        let (admin, client) = (admin.clone(), client.clone());
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().unwrap().as_str();
            let path = path
                .strip_prefix(PREFIX)
                .expect("every path has the prefix");
            let mut headers = head.headers;
            headers.remove("host");
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let request = client.request(head.method, format!("{admin}{path}"));
            let answer = request.headers(headers).body(body).send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            (status, headers, answer.bytes().await.unwrap())
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(forward)).await });
    format!("http://{address}{PREFIX}/")
}

#[tokio::test]
async fn it_works_behind_a_proxy_under_a_prefix() {
    let Some(duty) = Duty::begin("dashboard-proxy").await else {
        return;
    };
    let browser = &duty.browser;
    execute(&duty.pool, BAD_JOB).await;
    browser.open(&proxy(&duty.up.admin).await).await;
    browser
        .until("#verdict", |text| text.contains("1 dead job"))
        .await;
    browser.click("nav a[href='#queue']").await;
    browser.click("#queues [data-does=pause]").await;
    browser.say_yes().await;
    browser.element("#queues [data-does=resume]").await;
    browser.click("nav a[href='#jobs']").await;
    browser.click("#jobs-list button.link").await;
    browser.element("#job").await;
    duty.browser.finish().await;
}

/// Other tests send the headers of a cross-origin request themselves; here a browser sends them.
#[tokio::test]
async fn a_page_of_another_origin_can_neither_read_nor_change_anything() {
    let Some(duty) = Duty::begin("dashboard-origin").await else {
        return;
    };
    let browser = &duty.browser;
    // The page of the API has another origin than the admin listener.
    browser.open(&format!("{}/docs/", duty.up.api)).await;
    let pause = format!(
        "return fetch('{}/queues/expire-bookings/pause', {{method: 'POST', mode: 'no-cors'}}).then(() => 'sent', () => 'kept back')",
        duty.up.admin
    );
    let sent: Value = browser.run(&pause).await;
    assert!(sent == "sent" || sent == "kept back");
    let paused: i64 = sqlx::query_scalar("SELECT count(*) FROM queue_pauses")
        .fetch_one(&duty.pool)
        .await
        .unwrap();
    assert_eq!(paused, 0);
    duty.browser.quit().await;
}

/// Starts a web server that returns an empty page for every path; returns its URL.
async fn a_page_elsewhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = format!("http://{}/", listener.local_addr().unwrap());
    let pages = Router::new().fallback(async || Html("<!doctype html><title>elsewhere</title>"));
    tokio::spawn(async move { axum::serve(listener, pages).await });
    page
}

/// The API requires no key in this test, and the browser can reach it.
#[tokio::test]
async fn a_page_of_another_origin_cannot_use_the_api() {
    let Some(duty) = Duty::begin("dashboard-api-origin").await else {
        return;
    };
    let browser = &duty.browser;
    duty.a_show("Morning Show").await;
    duty.book(1, 2).await;
    browser.open(&a_page_elsewhere().await).await;
    for request in ["bookings/1/cancel", "bookings/1/confirm"] {
        let sent: Value = browser
            .run(&format!(
                "return fetch('{}/{request}', {{method: 'POST', mode: 'no-cors'}}).then(() => 'sent', () => 'kept back')",
                duty.up.api
            ))
            .await;
        assert_eq!(sent, "sent", "the browser sends the request");
    }
    let status: String = sqlx::query_scalar("SELECT status FROM bookings")
        .fetch_one(&duty.pool)
        .await
        .unwrap();
    assert_eq!(status, "PENDING");
    duty.browser.quit().await;
}
