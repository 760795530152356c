//! Attackers of a siege. Each repeats one kind of attack.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::sleep,
};

use crate::stress::http::{Connection, Target, get, post};

/// Kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Attack {
    /// Open connections, send one request on each, and leave them open
    Connections,
    /// Send most of a long request head, then one byte per second
    SlowHeads,
    /// Announce a body, and send one byte of it per second
    SlowBodies,
    /// Request the longest lists, and read 100 bytes of them per second
    SlowReaders,
    /// Send as many requests with an invalid key as possible
    WrongKeys,
    /// Request as many of the longest lists as possible
    Lists,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::SlowHeads => "slow-heads",
            Self::SlowBodies => "slow-bodies",
            Self::SlowReaders => "slow-readers",
            Self::WrongKeys => "wrong-keys",
            Self::Lists => "lists",
        })
    }
}

/// Target and resources of the attackers.
pub(super) struct Siege {
    pub(super) target: Target,
    /// A valid API key with all scopes.
    pub(super) key: String,
    /// Number of connections, for attacks that consist of many connections.
    pub(super) connections: u32,
}

/// Running attackers.
pub(super) struct Attackers {
    tasks: JoinSet<()>,
    counts: Arc<Mutex<Counts>>,
}

/// Results of the attackers: how often they got each status code and how their connections ended.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Counts(BTreeMap<String, u64>);

/// Number of connections, for attacks that send as many requests as possible.
const FLOOD_CONNECTIONS: u32 = 256;

/// Number of connections opened in a burst. A system drops some if too many arrive at once.
const BURST: u32 = 200;

/// Time between two bursts.
const BETWEEN_BURSTS: Duration = Duration::from_millis(50);

/// Pause of an attacker after its connection ended.
const REST: Duration = Duration::from_secs(1);

impl Siege {
    pub(super) fn begin(self, attack: Attack) -> Attackers {
        let count = match attack {
            Attack::Connections | Attack::SlowHeads | Attack::SlowBodies | Attack::SlowReaders => {
                self.connections
            }
            Attack::WrongKeys | Attack::Lists => FLOOD_CONNECTIONS,
        };
        let counts = Arc::new(Mutex::new(Counts::default()));
        let siege = Arc::new(self);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let attacker = Attacker {
                siege: siege.clone(),
                counts: counts.clone(),
            };
            tasks.spawn(async move {
                sleep(BETWEEN_BURSTS * (number / BURST)).await;
                attacker.attack(attack).await;
            });
        }
        Attackers { tasks, counts }
    }
}

impl Attackers {
    pub(super) async fn end(mut self) -> Counts {
        self.tasks.shutdown().await;
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

struct Attacker {
    siege: Arc<Siege>,
    counts: Arc<Mutex<Counts>>,
}

impl Attacker {
    async fn attack(self, attack: Attack) {
        loop {
            let ended = match attack {
                Attack::Connections => self.leave_open().await,
                Attack::SlowHeads => self.send_slowly(&self.long_head()).await,
                Attack::SlowBodies => self.send_slowly(&self.head_of_a_booking()).await,
                Attack::SlowReaders => self.read_slowly().await,
                Attack::WrongKeys => self.flood("/bookings/1", WRONG_KEY).await,
                Attack::Lists => self.flood(LONGEST_LIST, &self.siege.key).await,
            };
            match ended {
                Ok(()) => self.count("connections closed"),
                Err(error) => self.count(&format!("connections: {}", error.kind())),
            }
            sleep(REST).await;
        }
    }

    fn count(&self, what: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.0.entry(what.to_owned()).or_default() += 1;
    }

    async fn leave_open(&self) -> io::Result<()> {
        let mut stream = self.siege.target.connect().await?;
        stream
            .write_all(&get(&self.siege.target, "/openapi.json"))
            .await?;
        self.read(&mut stream, 512, Duration::ZERO).await
    }

    /// Returns a request head that is almost as long as allowed, and has no end.
    fn long_head(&self) -> Vec<u8> {
        let mut head = get(&self.siege.target, "/shows");
        head.truncate(head.len() - 2);
        head.extend(b"x-long: ");
        head.resize(LONG_HEAD_BYTES, b'x');
        head
    }

    fn head_of_a_booking(&self) -> Vec<u8> {
        let target = self.siege.target.clone().with_key(Some(&self.siege.key));
        let body = " ".repeat(BODY_BYTES);
        let mut head = post(&target, "/bookings", &body);
        head.truncate(head.len() - body.len());
        head
    }

    /// Sends `beginning`, then one byte per second until the server closes the connection.
    async fn send_slowly(&self, beginning: &[u8]) -> io::Result<()> {
        let mut stream = self.siege.target.connect().await?;
        stream.write_all(beginning).await?;
        let (mut reader, mut writer) = stream.split();
        tokio::select! {
            ended = drip(&mut writer) => ended,
            ended = self.read(&mut reader, 512, Duration::ZERO) => ended,
        }
    }

    /// Reads until the server closes the connection, and counts the status of the first response.
    ///
    /// It reads `bytes` at a time, and pauses in between.
    async fn read(
        &self,
        reader: &mut (impl AsyncReadExt + Unpin),
        bytes: usize,
        pause: Duration,
    ) -> io::Result<()> {
        let mut buffer = vec![0; bytes];
        let mut is_first = true;
        loop {
            let length = reader.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            if std::mem::take(&mut is_first) {
                let status = buffer[..length].get(9..12).unwrap_or_default();
                self.count(&String::from_utf8_lossy(status));
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    async fn read_slowly(&self) -> io::Result<()> {
        let target = self.siege.target.clone().with_key(Some(&self.siege.key));
        let mut stream = self.siege.target.connect_with_small_buffer().await?;
        stream.write_all(&get(&target, LONGEST_LIST)).await?;
        self.read(&mut stream, 100, Duration::from_secs(1)).await
    }

    async fn flood(&self, path: &str, key: &str) -> io::Result<()> {
        let target = self.siege.target.clone().with_key(Some(key));
        let request = get(&target, path);
        let mut connection = Connection::open(&target).await.map_err(io::Error::other)?;
        loop {
            let status = connection.send(&request).await?.status;
            self.count(&status.to_string());
        }
    }
}

/// Sends one byte per second.
async fn drip(writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    loop {
        sleep(Duration::from_secs(1)).await;
        writer.write_all(b" ").await?;
    }
}

const LONG_HEAD_BYTES: usize = 15 * 1024;

/// Length of an announced body, in bytes. A little less than the maximum.
const BODY_BYTES: usize = 16_000;

const LONGEST_LIST: &str = "/bookings?limit=1000";

/// An invalid API key. It is well-formed, so that the server looks it up.
const WRONG_KEY: &str = "tkt_1_00000000000000000000000000000000000000000000000000000000000000ff";

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self
            .0
            .iter()
            .map(|(what, count)| format!("{count} x {what}"));
        f.write_str(&counts.collect::<Vec<_>>().join(", "))
    }
}
