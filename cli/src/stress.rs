//! `ticketing stress`

mod clients;
pub(crate) mod http;
mod report;
mod told;
pub(crate) mod verify;

use std::{io::IsTerminal, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

pub(crate) use self::report::Report;
use self::{
    clients::Load,
    http::{Connection, Target, post},
    told::Told,
    verify::Expected,
};

/// Put load on a server, and verify that it neither oversells nor loses a seat
///
/// Makes shows of its own and books them from many connections at once, each sending its next request when the last
/// one is answered. Then it asks the server for every booking and adds up the seats. Exits with 1 when they don't
/// add up, or when an acknowledged booking is missing.
#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(crate) struct Args {
    /// What the clients do
    #[arg(value_enum, default_value_t = Mode::Hot)]
    pub(crate) mode: Mode,

    /// The server; given several times, the connections are spread over them
    #[arg(
        long = "url",
        value_name = "URL",
        default_value = "http://127.0.0.1:5000"
    )]
    pub(crate) urls: Vec<String>,

    /// How many connections, all open at the same time
    #[arg(long, short, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,

    /// For how many seconds; `sellout` ends by itself
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) duration: u64,

    /// Over how many shows; by default 100 with `spread`, else 1. `sellout` has one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) shows: Option<u32>,

    /// Name the show when a booking is confirmed or cancelled, by which Citus finds it sooner
    #[arg(long)]
    pub(crate) name_show: bool,

    /// Seats of the show: of `sellout`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub(crate) seats: i32,

    /// Requests for one seat each: of `sellout`; more than there are seats
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) requests: u32,

    /// Start this many turns a second, however slow the answers are, and count each turn's latency from when it was
    /// due. Without it, each connection begins its next turn when the last one is done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,

    /// How long a booking holds its seats unconfirmed; by default 10 with `mixed`, else 120
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub(crate) hold_seconds: Option<u32>,

    /// The key for a server that asks for one, with the scopes shows:read, shows:write, bookings:read, bookings:write
    #[arg(
        long,
        env = "TICKETING_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) api_key: Option<String>,

    /// Send each booking with an Idempotency-Key, stop waiting at random, and send it again until it is answered. Then
    /// there must be exactly one booking for each key that was answered with one
    #[arg(long)]
    pub(crate) retries: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Show no progress bar
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Args {
    /// The defaults, for another command that puts load on a server.
    pub(crate) fn quiet(mode: Mode) -> Self {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            args: Args,
        }
        let Defaults { args } = Defaults::parse_from(["stress", "--quiet"]);
        Self { mode, ..args }
    }

    /// How long a hold of this load lasts: short where holds are to expire during the run.
    fn hold_seconds(&self) -> u32 {
        let default = if self.mode == Mode::Mixed { 10 } else { 120 };
        self.hold_seconds.unwrap_or(default)
    }

    fn expected(&self, outcome: &Outcome) -> Expected {
        let hold = Duration::from_secs(self.hold_seconds().into());
        // Seats whose hold ran out are sold again, so that it is not certain how many bookings there are.
        let is_certain = self.mode == Mode::Sellout
            && outcome.took < hold
            && outcome.load.seen(|seen| seen.errors.is_empty());
        Expected {
            sold: is_certain.then_some(self.seats.unsigned_abs().into()),
            no_holds: false,
            within: hold + AT_REST_AFTER,
        }
    }
}

/// How long seats may be under way: a hold that has just run out is listed as failed a moment before its seats are
/// back. After the last hold and this time everything has come to rest.
const AT_REST_AFTER: Duration = Duration::from_secs(15);

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Everybody books one show with plenty of seats
    Hot,
    /// More requests than the show has seats: exactly the seats are sold
    Sellout,
    /// Bookings over many shows
    Spread,
    /// Book, then confirm
    Confirm,
    /// Book; then confirm three in five, cancel one, let one expire
    Mixed,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let report = stress(&args).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if !report.verified() {
        bail!("the seats do not add up");
    }
    Ok(())
}

/// Runs the load and verifies the result.
pub(crate) async fn stress(args: &Args) -> anyhow::Result<Report> {
    let outcome = put_load(args).await?;
    let verification = verify::verify(&outcome, &args.expected(&outcome)).await?;
    Ok(Report::new(args, &outcome, verification))
}

/// What came of a load.
pub(crate) struct Outcome {
    pub(crate) load: Arc<Load>,
    pub(crate) told: Told,
    pub(crate) took: Duration,
}

/// Makes the shows, and runs the load.
pub(crate) async fn put_load(args: &Args) -> anyhow::Result<Outcome> {
    gather(args).await?.put_load(args).await
}

/// Clients who are about to put a load on a server.
pub(crate) struct Crowd {
    targets: Vec<Target>,
    shows: Vec<i64>,
    open: Vec<Connection>,
}

/// Makes the shows, and opens the connections.
pub(crate) async fn gather(args: &Args) -> anyhow::Result<Crowd> {
    shared::process::raise_open_files_limit();
    if args.mode == Mode::Sellout && u64::from(args.requests) <= args.seats.unsigned_abs().into() {
        bail!("a sellout needs more requests than seats");
    }
    let targets: Vec<Target> = args
        .urls
        .iter()
        .map(|url| Ok(url.parse::<Target>()?.with_key(args.api_key.as_deref())))
        .collect::<anyhow::Result<_>>()?;
    let shows = make_shows(&targets[0], args).await?;
    let open = open_connections(&targets, args.connections).await?;
    Ok(Crowd {
        targets,
        shows,
        open,
    })
}

impl Crowd {
    /// Runs the load.
    pub(crate) async fn put_load(self, args: &Args) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let load = Arc::new(Load::new(args, self.targets, self.shows, began));
        let mut clients = JoinSet::new();
        for (index, connection) in self.open.into_iter().enumerate() {
            clients.spawn(clients::run(load.clone(), connection, index));
        }
        let finished = async {
            let mut told = Told::default();
            while let Some(client) = clients.join_next().await {
                told.append(client?);
            }
            anyhow::Ok(told)
        };
        let time_is_up = async {
            if args.mode != Mode::Sellout {
                watch(&load, args).await;
                load.end();
            }
        };
        let (told, ()) = tokio::join!(finished, time_is_up);
        Ok(Outcome {
            told: told?,
            took: began.elapsed(),
            load,
        })
    }
}

/// How many connections are being opened at the same time: a system drops some when too many come at once.
const OPENING: usize = 256;

/// Each to the target that its client will use.
async fn open_connections(targets: &[Target], count: u32) -> anyhow::Result<Vec<Connection>> {
    stream::iter(targets.iter().cycle().take(count as usize))
        .map(Connection::open)
        .buffered(OPENING)
        .try_collect()
        .await
}

async fn make_shows(target: &Target, args: &Args) -> anyhow::Result<Vec<i64>> {
    let (count, seats) = match args.mode {
        Mode::Sellout => (1, args.seats),
        Mode::Spread => (args.shows.unwrap_or(100), shared::show::MAX_SEATS),
        Mode::Hot | Mode::Confirm | Mode::Mixed => {
            (args.shows.unwrap_or(1), shared::show::MAX_SEATS)
        }
    };
    let show = json!({
        "name": "Stress",
        "startTime": "2030-01-01 20:00:00",
        "seats": seats,
        "holdSeconds": args.hold_seconds(),
    });
    let request = post(target, "/shows", &show.to_string());
    let mut connection = Connection::open(target).await?;
    let mut shows = Vec::new();
    for _ in 0..count {
        let reply = connection.send(&request).await?;
        if reply.status != 201 {
            bail!(
                "POST /shows was answered with {}: {}",
                reply.status,
                String::from_utf8_lossy(reply.body)
            );
        }
        shows.push(reply.id().context("the show has no id")?);
    }
    Ok(shows)
}

/// Shows how it goes, until the time is up.
async fn watch(load: &Load, args: &Args) {
    let bar = if std::io::stderr().is_terminal() && !args.quiet {
        ProgressBar::new(args.duration)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    let mut before = 0;
    for _ in 0..args.duration {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let booked = load.booked();
        bar.set_message(format!("{} bookings/s", booked - before));
        bar.inc(1);
        before = booked;
    }
    bar.finish_and_clear();
}
