//! The command `ticketing-lab stress`: puts load on a server and verifies the result.

mod acknowledgements;
mod args;
mod clients;
pub(crate) mod http;
mod load;
mod report;
pub(crate) mod verify;

use std::{io::IsTerminal, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    acknowledgements::Acknowledgements,
    http::{Connection, Target, post},
    load::Load,
    verify::{Expected, Verification},
};
pub(crate) use self::{
    args::{Args, Mode},
    load::Outcome,
    report::{Latency, Report},
};

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
    verified(args, &outcome).await
}

/// Runs the load on a server that has no lists to verify the result with.
pub(crate) async fn unverified(args: &Args) -> anyhow::Result<Report> {
    let outcome = put_load(args).await?;
    Ok(Report::new(args, &outcome, Verification::default()))
}

/// Verifies the result of a load, and returns its report.
pub(crate) async fn verified(args: &Args, outcome: &Outcome) -> anyhow::Result<Report> {
    let verification = verify::verify(outcome, &expected(args, outcome)).await?;
    Ok(Report::new(args, outcome, verification))
}

/// Time that the server gets, after the last hold has expired, to give all seats back.
///
/// An expired hold is listed as failed a moment before its seats are available again.
const AT_REST_AFTER: Duration = Duration::from_secs(15);

fn expected(args: &Args, outcome: &Outcome) -> Expected {
    let hold = Duration::from_secs(args.hold_seconds().into());
    // The seats of an expired hold are sold again, which makes the number of bookings
    // uncertain.
    let is_certain = args.mode == Mode::Sellout
        && outcome.took < hold
        && outcome.load.seen(|seen| seen.errors.is_empty());
    Expected {
        sold: is_certain.then_some(args.seats.unsigned_abs().into()),
        no_holds: false,
        within: hold + AT_REST_AFTER,
    }
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
    /// Books a seat on each connection, in turn, and keeps the connections open.
    pub(crate) async fn book_once(&mut self) -> anyhow::Result<()> {
        let body = clients::booking(self.shows[0], 0);
        for (connection, target) in self.open.iter_mut().zip(self.targets.iter().cycle()) {
            let reply = connection.send(&post(target, "/bookings", &body)).await?;
            ensure!(
                reply.status == 201,
                "a booking was answered with {}",
                reply.status
            );
        }
        Ok(())
    }

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
                if args.warm_up > 0 {
                    sleep(Duration::from_secs(args.warm_up)).await;
                    load.begin_to_measure();
                }
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
        Mode::Hot | Mode::Confirm | Mode::Mixed | Mode::Bulk => {
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
        sleep(Duration::from_secs(1)).await;
        let booked = load.booked();
        bar.set_message(format!("{} bookings/s", booked - before));
        bar.inc(1);
        before = booked;
    }
    bar.finish_and_clear();
}
