//! The command `ticketing-lab peer`: what many would build instead, for `ticketing-lab bench`.
//!
//! Redis holds the seats, and a script takes them with a deadline. An HTTP server as thin as it can
//! be answers with the JSON of our api. It has no keys, limits, retries, worker, lists or metrics.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use chrono::{DateTime, TimeDelta, Utc};
use redis::{Script, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Serve bookings from Redis, for `bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Socket of the Redis server
    #[arg(long, value_name = "FILE")]
    redis: PathBuf,
}

/// Script that takes seats; it returns the id of the booking, or nothing if too few are left.
const RESERVE: &str = "
    if redis.call('HINCRBY', KEYS[1], 'available', -ARGV[2]) < 0 then
        redis.call('HINCRBY', KEYS[1], 'available', ARGV[2])
        return false
    end
    local id = redis.call('INCR', 'bookings')
    redis.call('HSET', 'booking:' .. id, 'show', KEYS[1], 'user', ARGV[1], 'seats', ARGV[2],
               'status', 'PENDING', 'expiresAt', ARGV[3])
    redis.call('ZADD', 'deadlines', ARGV[3], id)
    return id";

struct Peer {
    redis: MultiplexedConnection,
    reserve: Script,
}

#[derive(Deserialize)]
struct NewShow {
    seats: i64,
}

#[derive(Serialize)]
struct Show {
    id: i64,
    seats: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewBooking {
    show_id: i64,
    user_name: String,
    number_of_seats: i64,
}

/// The members of a booking of our api.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Booking {
    id: i64,
    show_id: i64,
    user_name: String,
    number_of_seats: i64,
    status: &'static str,
    expires_at: DateTime<Utc>,
    extendable_until: DateTime<Utc>,
    seconds_left: i64,
    created_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
}

/// Serves until the program is killed. Prints the address that it listens on.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let url = format!("unix://{}", args.redis.display());
    let redis = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await
        .context("cannot connect to Redis")?;
    let peer = Peer {
        redis,
        reserve: Script::new(RESERVE),
    };
    let router = Router::new()
        .route("/shows", post(create_show))
        .route("/bookings", post(reserve))
        .with_state(Arc::new(peer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// Error of Redis, answered with 500.
struct Failed(redis::RedisError);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

impl From<redis::RedisError> for Failed {
    fn from(error: redis::RedisError) -> Self {
        Self(error)
    }
}

async fn create_show(
    State(peer): State<Arc<Peer>>,
    Json(new): Json<NewShow>,
) -> Result<(StatusCode, Json<Show>), Failed> {
    let mut redis = peer.redis.clone();
    let id: i64 = redis::cmd("INCR")
        .arg("shows")
        .query_async(&mut redis)
        .await?;
    let () = redis::cmd("HSET")
        .arg(format!("show:{id}"))
        .arg("available")
        .arg(new.seats)
        .query_async(&mut redis)
        .await?;
    let seats = new.seats;
    Ok((StatusCode::CREATED, Json(Show { id, seats })))
}

#[expect(clippy::disallowed_methods, reason = "the peer has no other clock")]
async fn reserve(
    State(peer): State<Arc<Peer>>,
    Json(new): Json<NewBooking>,
) -> Result<Response, Failed> {
    let created_at = Utc::now();
    let expires_at = created_at + TimeDelta::minutes(2);
    let id: Option<i64> = peer
        .reserve
        .key(format!("show:{}", new.show_id))
        .arg(&new.user_name)
        .arg(new.number_of_seats)
        .arg(expires_at.timestamp_millis())
        .invoke_async(&mut peer.redis.clone())
        .await?;
    let Some(id) = id else {
        return Ok(StatusCode::CONFLICT.into_response());
    };
    let booking = Booking {
        id,
        show_id: new.show_id,
        user_name: new.user_name,
        number_of_seats: new.number_of_seats,
        status: "PENDING",
        expires_at,
        extendable_until: created_at + TimeDelta::minutes(15),
        seconds_left: 119,
        created_at,
        resolved_at: None,
    };
    Ok((StatusCode::CREATED, Json(booking)).into_response())
}
