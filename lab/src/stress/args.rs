//! Arguments of a load.

use clap::Parser;

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

    /// Time before the measurement begins, in seconds; not for `sellout`
    ///
    /// Bookings and latencies of this time are not part of the rate and of the percentiles.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) warm_up: u64,

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

    /// Duration of a hold, in seconds; by default 10 for `mixed`, else 120
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
    pub(super) fn hold_seconds(&self) -> u32 {
        let default = if self.mode == Mode::Mixed { 10 } else { 120 };
        self.hold_seconds.unwrap_or(default)
    }
}

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
    /// Book 100 at a time (`POST /bookings/bulk`)
    Bulk,
}
