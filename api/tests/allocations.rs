//! Number of allocations that a booking costs the api.
//!
//! If it rises, look for what was added to the path of every request. If it falls, lower the limit.

mod server;

use std::{
    alloc::System,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use testing::until_one_waits_for_a_lock;

use crate::server::{Api, alice};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of bookings at the same time, which share transactions.
const BOOKINGS: usize = 64;

/// Maximum number of allocations and reallocations for each of them, in the best of several rounds:
/// one in which background tasks allocate little, and all bookings share a transaction.
const MAX: usize = 39;

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_allocates_no_more_than_before() {
    let api = Api::start().await;
    let show = json!({"name": "Hot", "startTime": "2025-12-10 10:00:00", "seats": 1000});
    api.post("/shows", &show).await;
    let address = api.base.trim_start_matches("http://");
    let mut clients: Vec<TcpStream> = (0..BOOKINGS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let body = alice(1).to_string();
    let request = format!(
        "POST /bookings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut best = usize::MAX;
    for _ in 0..8 {
        let mut shows = api.db.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM shows FOR UPDATE")
            .execute(&mut *shows)
            .await
            .unwrap();
        let (first, others) = clients.split_first_mut().unwrap();
        first.write_all(request.as_bytes()).unwrap();
        until_one_waits_for_a_lock(&api.db.pool).await;

        let region = Region::new(ALLOCATOR);
        for client in &mut *others {
            client.write_all(request.as_bytes()).unwrap();
        }
        shows.rollback().await.unwrap();
        for client in &mut clients {
            let mut answer = [0; 2048];
            let read = client.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 201"));
        }
        let change = region.change();
        best = best.min((change.allocations + change.reallocations) / BOOKINGS);
    }
    println!("{best} allocations for each booking");
    assert!(best <= MAX, "{best} allocations for each booking");
}
