//! The command `ticketing-lab stress`: puts load on a server and verifies the result.

mod acknowledgements;
mod clients;
pub(crate) mod http;
mod report;
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
    acknowledgements::Acknowledgements,
    clients::Load,
    http::{Connection, Target, post},
    verify::Expected,
};

/// Put load on a server, and verify that it neither oversells nor loses a seat
///
/// Creates its own shows and books them over many connections at once. Each connection sends its
/// next request when the previous one is answered. Then `stress` lists all bookings and adds up
/// the seats. Exits with 1 if they do not add up, or if an acknowledged booking is missing.
#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each one is a separate command-line flag"
)]
pub(crate) struct Args {
    /// Kind of load
    #[arg(value_enum, default_value_t = Mode::Hot)]
    pub(crate) mode: Mode,

    /// URL of an api; repeat it to spread the connections over several apis
    #[arg(
        long = "url",
        value_name = "URL",
        default_value = "http://127.0.0.1:5000"
    )]
    pub(crate) urls: Vec<String>,

    /// Number of connections, all open at the same time
    #[arg(long, short, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,

    /// Duration of the load, in seconds; `sellout` ends by itself
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) duration: u64,

    /// Number of shows; by default 100 for `spread`, else 1. `sellout` always has one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) shows: Option<u32>,

    /// Send `?showId=` with confirm and cancel, so that Citus finds the booking faster
    #[arg(long)]
    pub(crate) name_show: bool,

    /// Seats of the show, for `sellout`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub(crate) seats: i32,

    /// Requests for one seat each, for `sellout`; must be more than there are seats
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) requests: u32,

    /// Start this many turns per second, however slow the server is
    ///
    /// A turn is a booking and what the client then does with it. Latency counts from the moment
    /// the turn was due. By default, each connection starts its next turn when the previous one is
    /// done.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,

    /// How long an unconfirmed booking holds its seats; by default 10 for `mixed`, else 120
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub(crate) hold_seconds: Option<u32>,

    /// API key, if the server requires one
    ///
    /// It needs the scopes shows:read, shows:write, bookings:read and bookings:write.
    #[arg(
        long,
        env = "TICKETING_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) api_key: Option<String>,

    /// Send bookings with an Idempotency-Key, time out at random, and retry until answered
    ///
    /// Afterwards there must be exactly one booking for each key whose booking was acknowledged.
    #[arg(long)]
    pub(crate) retries: bool,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Hide the progress bar
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Args {
    /// Returns the default arguments, without a progress bar, for commands that reuse this load.
    pub(crate) fn quiet(mode: Mode) -> Self {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            args: Args,
        }
        let Defaults { args } = Defaults::parse_from(["stress", "--quiet"]);
        Self { mode, ..args }
    }

    /// Returns the lifetime of a hold: short in a load whose holds are to expire during the run.
    fn hold_seconds(&self) -> u32 {
        let default = if self.mode == Mode::Mixed { 10 } else { 120 };
        self.hold_seconds.unwrap_or(default)
    }

    fn expected(&self, outcome: &Outcome) -> Expected {
        let hold = Duration::from_secs(self.hold_seconds().into());
        // The seats of an expired hold are sold again, which makes the number of bookings
        // uncertain.
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

/// Time that the server gets, after the last hold has expired, to give all seats back.
///
/// An expired hold is listed as failed a moment before its seats are available again.
const AT_REST_AFTER: Duration = Duration::from_secs(15);

/// Kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// All clients book the same show, which has plenty of seats
    Hot,
    /// More requests than the show has seats; each seat must be sold once
    Sellout,
    /// Bookings are spread over many shows
    Spread,
    /// Book, then confirm
    Confirm,
    /// Of five bookings, confirm three, cancel one and let one expire
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

/// Outcome of a load, before it is verified.
pub(crate) struct Outcome {
    pub(crate) load: Arc<Load>,
    pub(crate) acks: Acknowledgements,
    pub(crate) took: Duration,
}

/// Creates the shows and runs the load.
pub(crate) async fn put_load(args: &Args) -> anyhow::Result<Outcome> {
    gather(args).await?.put_load(args).await
}

/// Connected clients that are ready to start a load.
pub(crate) struct Crowd {
    targets: Vec<Target>,
    shows: Vec<i64>,
    open: Vec<Connection>,
}

/// Creates the shows and opens the connections.
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
            let mut acks = Acknowledgements::default();
            while let Some(client) = clients.join_next().await {
                acks.append(client?);
            }
            anyhow::Ok(acks)
        };
        let time_is_up = async {
            if args.mode != Mode::Sellout {
                watch(&load, args).await;
                load.end();
            }
        };
        let (acks, ()) = tokio::join!(finished, time_is_up);
        Ok(Outcome {
            acks: acks?,
            took: began.elapsed(),
            load,
        })
    }
}

/// Number of connections to open at the same time.
///
/// The operating system drops some if too many arrive at once.
const OPENING: usize = 256;

/// Opens each client's connection, to the target that the client will use.
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

/// Updates the progress bar once a second until the duration is over.
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
