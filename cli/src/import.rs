//! The command `ticketing import`: books the rows of a CSV file.

mod batch;
mod bulk;
mod client;
mod report;
mod rows;

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
    vec,
};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use self::{batch::Importer, client::Client, report::Report, rows::Row};

/// Book the rows of a CSV file
///
/// The first line names the columns, in any order: `showId`, `userName`, `numberOfSeats`, and
/// optionally `idempotencyKey`. The file is in UTF-8, with commas. If a line is invalid, nothing is
/// sent, and all invalid lines are reported.
///
/// Each booking is made with an idempotency key: the one in its row, or one made of the file's
/// content and the line number. So if the import is interrupted, run the same command again within
/// 24 hours: it continues where it ended, and books nothing twice. In a file that was edited, rows
/// without a key of their own count as new.
///
/// A new booking holds its seats for a limited time, so it is confirmed at once. If an earlier run
/// was interrupted before that, and the hold has expired, the row is booked again, unless it has a
/// key of its own.
///
/// Requests that the server cannot take now (429, 503, no answer) are repeated. At the end, the
/// numbers of rows are printed: booked, already there, confirmed, refused, not finished. Exits with
/// 1 if a row was refused or is not finished.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// CSV file
    file: PathBuf,

    /// URL of the API, without TLS
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:5000",
        value_parser = url
    )]
    url: String,

    /// API key with the scope `bookings:write`, if the API requires one
    ///
    /// Other users of this machine can see arguments, but not environment variables.
    #[arg(
        long,
        env = "TICKETING_API_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,

    /// Number of bookings in a request
    ///
    /// A request counts as 50 requests for the rate limit, and the confirmation of each booking as
    /// one. The confirmations of a batch must not take longer than a hold lasts.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: u16,

    /// Number of batches in flight
    ///
    /// With 1, the rows are booked in the order of the file. With more, later rows of a show may
    /// get its last seats.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,

    /// Hold the seats only, and confirm no booking
    #[arg(long)]
    hold_only: bool,

    /// Seconds for which requests that the server cannot take are repeated before the import ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    give_up_seconds: u32,

    /// CSV file to write the refused rows to, with line number, problem type and detail
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
}

/// Parses the URL of an API.
fn url(text: &str) -> anyhow::Result<String> {
    let is_valid = reqwest::Url::parse(text).is_ok_and(|url| {
        url.scheme() == "http" && url.query().is_none() && url.fragment().is_none()
    });
    ensure!(
        is_valid,
        "it must be of the form http://host:port; TLS is not supported"
    );
    Ok(text.trim_end_matches('/').to_owned())
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let rows = rows::read(&args.file)?;
    let client = Client::new(&args.url, args.api_key.as_deref())?;
    client.check().await?;
    // Before anything is sent, in case it can't be written.
    let refused_file = args.refused.as_deref().map(File::create).transpose();
    let refused_file = refused_file.context("cannot create the file of refused rows")?;

    let bar = progress_bar(rows.len())?;
    let importer = Importer {
        client,
        confirms: !args.hold_only,
        give_up: Duration::from_secs(args.give_up_seconds.into()),
        bar: bar.clone(),
    };
    let (report, ended) = import(importer, rows, &args).await;
    bar.finish_and_clear();
    if let Some(file) = refused_file {
        report::write(&report.refused, file).context("cannot write the file of refused rows")?;
    }
    report.print();
    ended?;
    let (refused, all) = (report.refused.len(), report.settled());
    ensure!(refused == 0, "{refused} of {all} rows were refused");
    Ok(())
}

/// Returns the progress bar, which is hidden if standard error is not a terminal.
fn progress_bar(rows: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}")
        .context("the progress bar's template is invalid")?;
    Ok(ProgressBar::new(rows as u64).with_style(style))
}

/// Batches that are still to be imported, shared by all tasks.
type Batches = Mutex<vec::IntoIter<Vec<Row>>>;

/// Imports all rows. After an error no further batch is begun, and those in flight are finished.
async fn import(importer: Importer, rows: Vec<Row>, args: &Args) -> (Report, anyhow::Result<()>) {
    let all = rows.len();
    let importer = Arc::new(importer);
    let batches = Arc::new(Mutex::new(split(rows, args.batch.into()).into_iter()));
    let mut tasks = JoinSet::new();
    for _ in 0..args.connections {
        tasks.spawn(work(importer.clone(), batches.clone()));
    }
    let mut report = Report::default();
    let mut ended = Ok(());
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok((of_task, result)) => {
                report.add(of_task);
                ended = ended.and(result);
            }
            Err(error) => ended = ended.and(Err(error.into())),
        }
    }
    report.sort();
    report.unfinished = all - report.settled();
    let ended = ended.context("the import is not finished; run the same command to continue");
    (report, ended)
}

/// Imports one batch after the other.
async fn work(importer: Arc<Importer>, batches: Arc<Batches>) -> (Report, anyhow::Result<()>) {
    let mut report = Report::default();
    loop {
        let Some(batch) = next(&batches) else {
            return (report, Ok(()));
        };
        if let Err(error) = importer.import(batch, &mut report).await {
            skip_all(&batches);
            return (report, Err(error));
        }
    }
}

fn next(batches: &Batches) -> Option<Vec<Row>> {
    let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
    batches.next()
}

/// Leaves no batch for the other tasks.
fn skip_all(batches: &Batches) {
    let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
    *batches = Vec::new().into_iter();
}

fn split(rows: Vec<Row>, length: usize) -> Vec<Vec<Row>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(|| {
        let batch: Vec<Row> = rows.by_ref().take(length).collect();
        (!batch.is_empty()).then_some(batch)
    })
    .collect()
}
