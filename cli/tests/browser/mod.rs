//! A real browser, without a window.

use std::{env, io, mem::ManuallyDrop, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use shared::testing::eventually;
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep},
};

/// Chromium, on one page.
pub(crate) struct Browser {
    // Never dropped: when a test fails it would wait for minutes for what is killed.
    pub(crate) driver: ManuallyDrop<WebDriver>,
    _chromedriver: Chromedriver,
}

/// It and all that it starts, killed when this is dropped.
struct Chromedriver(Child);

impl Drop for Chromedriver {
    fn drop(&mut self) {
        if let Some(id) = self.0.id() {
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

fn start_chromedriver() -> io::Result<Child> {
    Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// The port that it listens on, as it says; none when it ends without one.
async fn port(stdout: ChildStdout) -> Option<u16> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("successfully on port ") {
            return port.trim_end_matches('.').parse().ok();
        }
    }
    None
}

impl Browser {
    /// Starts it; none, with a word about it, where there is none. With the environment variable `REQUIRE_BROWSER` there
    /// must be one.
    pub(crate) async fn start() -> Option<Self> {
        // The port that it takes of one family of addresses may be taken of the other; it ends then.
        let (chromedriver, port) = loop {
            let Ok(mut process) = start_chromedriver() else {
                assert!(env::var_os("REQUIRE_BROWSER").is_none(), "no chromedriver");
                eprintln!(
                    "SKIPPED: there is no chromedriver (Debian: apt-get install chromium-driver)"
                );
                return None;
            };
            let port = port(process.stdout.take().unwrap()).await;
            let status = match port {
                Some(port) => break (Chromedriver(process), port),
                None => process.wait().await.unwrap(),
            };
            assert_eq!(status.code(), Some(1), "it ends for another reason");
        };
        let mut chromium = DesiredCapabilities::chrome();
        for arg in [
            "--headless=new",
            // As root it needs it; it sees nothing but our own page.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--window-size=1400,900",
        ] {
            chromium.add_arg(arg).unwrap();
        }
        chromium
            .set_logging_prefs("browser", LoggingPrefsLogLevel::All)
            .unwrap();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), chromium)
            .await
            .expect("chromium starts");
        Some(Self {
            driver: ManuallyDrop::new(driver),
            _chromedriver: chromedriver,
        })
    }

    /// Opens an address, also when only its fragment is new.
    pub(crate) async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// What a script answers with.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let answer = self.driver.execute(script, vec![]).await.unwrap();
        answer.json().clone()
    }

    /// The text of the first element with this selector; empty while there is none.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        self.run(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an element's text is as it should be.
    pub(crate) async fn until(&self, selector: &str, is_right: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            let text = self.text(selector).await;
            if is_right(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{selector} stays {text:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for an element that can be seen.
    pub(crate) async fn element(&self, selector: &str) -> WebElement {
        let mut found = None;
        eventually(&format!("{selector} can be seen"), async || {
            found = match self.driver.find(By::Css(selector)).await {
                Ok(element) if element.is_displayed().await.unwrap_or(false) => Some(element),
                _ => None,
            };
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Clicks it; again when the page has made it anew in between.
    pub(crate) async fn click(&self, selector: &str) {
        let deadline = Instant::now() + Duration::from_mins(2);
        // It may be under the head, which stays when the page is scrolled.
        let center =
            format!("document.querySelector({selector:?})?.scrollIntoView({{block: 'center'}})");
        while let Err(error) = {
            let element = self.element(selector).await;
            self.run(&center).await;
            element.click().await
        } {
            assert!(Instant::now() < deadline, "{selector}: {error}");
        }
    }

    /// Says yes to the question that is asked, and returns it.
    pub(crate) async fn say_yes(&self) -> String {
        self.element("#confirm").await;
        let question = self.text("#confirm-text").await;
        self.click("#confirm button[value=yes]").await;
        question
    }

    /// Light or dark, as the system has it.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setEmulatedMedia", features)
            .await
            .unwrap();
    }

    /// As wide and high as a screen.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let screen =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setDeviceMetricsOverride", screen)
            .await
            .unwrap();
    }

    /// Keeps a picture of what is seen.
    pub(crate) async fn picture(&self, path: &Path) {
        self.driver.screenshot(path).await.unwrap();
    }

    /// Ends it.
    pub(crate) async fn quit(&self) {
        WebDriver::clone(&self.driver).quit().await.unwrap();
    }

    /// Ends it: nothing may have gone wrong on the page.
    pub(crate) async fn finish(self) {
        let log = self.driver.browser_log().await.unwrap();
        let log: Vec<String> = log.iter().map(|entry| format!("{entry:?}")).collect();
        self.quit().await;
        assert!(log.is_empty(), "on the console: {log:#?}");
    }
}
