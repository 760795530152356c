//! A headless Chromium for tests.

use std::{env, io, mem::ManuallyDrop, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use testing::eventually;
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep},
};

/// A headless Chromium with one page.
pub(crate) struct Browser {
    // Never dropped: after a failed test, the drop would wait for minutes for a process that has
    // been killed.
    pub(crate) driver: ManuallyDrop<WebDriver>,
    _chromedriver: Chromedriver,
}

/// A chromedriver and its child processes; killed when this is dropped.
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

/// Returns the port that chromedriver prints; `None` if it exits without printing one.
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
    /// Starts a browser; returns `None` and prints a note if chromedriver is not installed.
    ///
    /// With the environment variable `REQUIRE_BROWSER` it panics instead.
    pub(crate) async fn start() -> Option<Self> {
        // Chromedriver listens on the same port for IPv4 and IPv6. It exits if the port that it
        // found free in one family is taken in the other, so try again.
        let (chromedriver, port) = loop {
            let Ok(mut process) = start_chromedriver() else {
                assert!(env::var_os("REQUIRE_BROWSER").is_none(), "no chromedriver");
                eprintln!(
                    "SKIPPED: chromedriver is not installed (Debian: apt-get install chromium-driver)"
                );
                return None;
            };
            let port = port(process.stdout.take().unwrap()).await;
            let status = match port {
                Some(port) => break (Chromedriver(process), port),
                None => process.wait().await.unwrap(),
            };
            assert_eq!(status.code(), Some(1), "chromedriver failed");
        };
        let mut chromium = DesiredCapabilities::chrome();
        for arg in [
            "--headless=new",
            // Required for root. Safe here, because the browser opens only our own pages.
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

    /// Opens a URL, even if it differs from the current one only in its fragment.
    pub(crate) async fn open(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Runs a script in the page, and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let answer = self.driver.execute(script, vec![]).await.unwrap();
        answer.json().clone()
    }

    /// Returns the text of the first element that matches a selector; empty while there is none.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        self.run(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an element's text satisfies `is_right`, and returns the text.
    pub(crate) async fn until(&self, selector: &str, is_right: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            let text = self.text(selector).await;
            if is_right(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{selector} is still {text:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an element is visible, and returns it.
    pub(crate) async fn element(&self, selector: &str) -> WebElement {
        let mut found = None;
        eventually(&format!("{selector} is visible"), async || {
            found = match self.driver.find(By::Css(selector)).await {
                Ok(element) if element.is_displayed().await.unwrap_or(false) => Some(element),
                _ => None,
            };
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Clicks an element; retries if the page replaced the element in the meantime.
    pub(crate) async fn click(&self, selector: &str) {
        let deadline = Instant::now() + Duration::from_mins(2);
        // Without this, the element may be covered by the header, which does not scroll.
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

    /// Confirms the dialog, and returns its question.
    pub(crate) async fn say_yes(&self) -> String {
        self.element("#confirm").await;
        let question = self.text("#confirm-text").await;
        self.click("#confirm button[value=yes]").await;
        question
    }

    /// Emulates the system's preference for a color scheme, `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setEmulatedMedia", features)
            .await
            .unwrap();
    }

    /// Emulates a screen of this size.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let screen =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setDeviceMetricsOverride", screen)
            .await
            .unwrap();
    }

    /// Saves a screenshot.
    pub(crate) async fn picture(&self, path: &Path) {
        self.driver.screenshot(path).await.unwrap();
    }

    /// Closes the browser.
    pub(crate) async fn quit(&self) {
        WebDriver::clone(&self.driver).quit().await.unwrap();
    }

    /// Closes the browser; panics if the page has logged anything to the console.
    pub(crate) async fn finish(self) {
        let log = self.driver.browser_log().await.unwrap();
        let log: Vec<String> = log.iter().map(|entry| format!("{entry:?}")).collect();
        self.quit().await;
        assert!(log.is_empty(), "the console is not empty: {log:#?}");
    }
}
