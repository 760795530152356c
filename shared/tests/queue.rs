//! Tests of inspecting and controlling the queue.

use std::collections::BTreeSet;

use shared::{
    batch::Batch,
    booking::reserve,
    id::{BookingId, ShowId},
    jobs::{self, CancelShow, ExpireBookings, Job},
    queue::{
        JobState,
        control::{self, Action, Note},
        inspect::{self, Filter, QueuedJob},
    },
};
use sqlx::PgPool;
use testing::{TestDatabase, a_hold, a_show, connect, count, execute, now, request};

const QUEUE: &str = ExpireBookings::QUEUE;

/// The queue's payloads are written and read in Rust and in SQL.
#[tokio::test]
async fn rust_and_sql_agree_on_the_payload_of_a_job() {
    let db = TestDatabase::new().await;
    for (show_id, booking_ids) in [
        (Some(ShowId(7)), vec![3, 5]),
        (None, vec![4]),
        (None, vec![]),
    ] {
        let job = ExpireBookings {
            show_id,
            booking_ids: booking_ids.into_iter().map(BookingId).collect(),
        };
        let payload: Vec<u8> = sqlx::query_scalar("SELECT expire_bookings_payload($1, $2)")
            .bind(job.show_id)
            .bind(&job.booking_ids)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        assert_eq!(
            serde_json::from_slice::<ExpireBookings>(&payload).unwrap(),
            job
        );
        for payload in [payload, serde_json::to_vec(&job).unwrap()] {
            assert_eq!(bookings_of(&db.pool, &payload).await, job.booking_ids);
        }
    }
    let others = [
        "",
        "null",
        "{}",
        r#"{"bookingIds":[1,-2]}"#,
        r#"{"bookingIds":[99999999999999999999]}"#,
    ];
    for other in others {
        assert_eq!(bookings_of(&db.pool, other.as_bytes()).await, [], "{other}");
    }
}

async fn bookings_of(pool: &PgPool, payload: &[u8]) -> Vec<BookingId> {
    sqlx::query_scalar("SELECT bookings_of_payload($1)")
        .bind(payload)
        .fetch_all(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_enqueued_job_exists_if_and_only_if_its_transaction_commits() {
    let db = TestDatabase::new().await;
    let job = ExpireBookings {
        show_id: None,
        booking_ids: vec![BookingId(1)],
    };
    let now = now(&db.pool).await;
    for commits in [false, true] {
        let mut tx = db.pool.begin().await.unwrap();
        jobs::enqueue(&mut tx, &job, now, now).await.unwrap();
        if commits {
            tx.commit().await.unwrap();
        }
        assert_eq!(
            count(&db.pool, "SELECT count(*) FROM apalis.jobs").await,
            i64::from(commits)
        );
    }
    let details = inspect::jobs(&db.pool, &filter(Some(JobState::Due)), None, 10)
        .await
        .unwrap();
    assert_eq!(details[0].max_attempts, ExpireBookings::MAX_ATTEMPTS);
}

/// Inserts this many jobs for each of the ways in which a row can be in a state.
async fn fill(pool: &PgPool, of_each: i32) {
    sqlx::query(
        r#"INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, lock_at, done_at, last_result)
           SELECT '01' || lpad(upper(to_hex(row_number() OVER ())), 24, '0'), 'expire-bookings', '{"bookingIds":[1]}',
                  status, attempts, 3, now() + n * step, now() - n * interval '1 second', now() - n * interval '1 second', result
           FROM generate_series(1, $1) AS n, (VALUES
               ('Pending', 0, interval '1 hour', NULL::jsonb),
               ('Pending', 0, interval '-1 hour', NULL),
               ('Failed', 1, interval '-1 hour', '{"Err": "away"}'),
               ('Queued', 0, interval '-1 hour', NULL),
               ('Running', 1, interval '-1 hour', NULL),
               ('Failed', 1, interval '1 hour', '{"Err": "away"}'),
               ('Done', 1, interval '-1 hour', '{"Ok": null}'),
               ('Killed', 1, interval '-1 hour', '{"Err": "bad"}'),
               ('Failed', 3, interval '-1 hour', '{"Err": "away"}')) AS row (status, attempts, step, result)"#,
    )
    .bind(of_each)
    .execute(pool)
    .await
    .unwrap();
    execute(pool, "ANALYZE apalis.jobs").await;
}

fn filter(state: Option<JobState>) -> Filter {
    Filter {
        queue: QUEUE.to_owned(),
        state,
        booking_id: None,
        show_id: None,
    }
}

/// Reads a whole list, in pages of 4.
async fn follow(pool: &PgPool, filter: &Filter) -> Vec<QueuedJob> {
    let mut all: Vec<QueuedJob> = Vec::new();
    loop {
        let after = all.last().map(|last| filter.cursor(last));
        let page = inspect::jobs(pool, filter, after.as_ref(), 4)
            .await
            .unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

#[tokio::test]
async fn each_job_is_in_one_state_and_listed_there_once() {
    let db = TestDatabase::new().await;
    fill(&db.pool, 5).await;
    let queues = inspect::queues(&db.pool).await.unwrap();
    let [queue, empty] = queues.as_slice() else {
        panic!("expected two queues: {queues:?}");
    };
    assert!(empty.depth.values().all(|count| *count == 0), "{empty:?}");
    let mut listed = BTreeSet::new();
    for (state, expected) in [
        (JobState::Scheduled, 5),
        (JobState::Due, 10),
        (JobState::Running, 10),
        (JobState::Failed, 5),
        (JobState::Done, 5),
        (JobState::Dead, 10),
    ] {
        let jobs = follow(&db.pool, &filter(Some(state))).await;
        assert_eq!(jobs.len(), expected, "{state:?}");
        assert!(jobs.iter().all(|job| job.state == state), "{state:?}");
        assert_eq!(queue.depth[&state], i64::try_from(expected).unwrap());
        let counted = inspect::count(&db.pool, &filter(Some(state)), 7)
            .await
            .unwrap();
        assert_eq!(counted, i64::try_from(expected.min(7)).unwrap());
        let times: Vec<_> = jobs
            .iter()
            .map(|job| match state {
                JobState::Scheduled | JobState::Due | JobState::Failed => job.run_at,
                JobState::Running => job.taken_at.unwrap(),
                JobState::Done | JobState::Dead => job.ended_at.unwrap(),
            })
            .collect();
        match state {
            JobState::Done | JobState::Dead => assert!(times.is_sorted_by(|a, b| a >= b)),
            _ => assert!(times.is_sorted()),
        }
        listed.extend(jobs.into_iter().map(|job| job.id));
    }
    assert_eq!(listed.len(), 45, "each job has one state");
    let all = follow(&db.pool, &filter(None)).await;
    assert_eq!(all.len(), 45);
    assert!(all.is_sorted_by(|a, b| a.id > b.id), "newest first");
    let longest = 5.0 * 3600.0;
    assert!((longest..longest + 600.0).contains(&queue.due_lag_seconds));
    assert_eq!(queue.done_last_minute, 5);
}

#[tokio::test]
async fn a_booking_leads_to_its_job_and_a_job_to_its_bookings() {
    let db = TestDatabase::new().await;
    let [show, other] = [a_show(&db.pool, 10).await, a_show(&db.pool, 10).await];
    let batch = [show.id, show.id, other.id].map(|show_id| request(show_id, 1));
    let together = reserve::reserve(&mut db.session(), &mut Batch::of(batch))
        .await
        .unwrap();
    let together: Vec<BookingId> = together
        .into_iter()
        .map(|answer| answer.unwrap().resource.id)
        .collect();
    let alone = a_hold(&db.pool, &other, 1).await.id;

    let of = async |booking_id: Option<BookingId>, show_id: Option<ShowId>| {
        let filter = Filter {
            booking_id,
            show_id,
            ..filter(None)
        };
        let jobs = inspect::jobs(&db.pool, &filter, None, 100).await.unwrap();
        let mut named = Vec::new();
        for job in jobs {
            let details = inspect::find(&db.pool, &job.id).await.unwrap().unwrap();
            named.push(
                details
                    .bookings
                    .iter()
                    .map(|booking| booking.id)
                    .collect::<Vec<_>>(),
            );
        }
        named
    };
    assert_eq!(of(Some(together[2]), None).await, [together.as_slice()]);
    assert_eq!(of(Some(alone), None).await, [[alone]]);
    assert_eq!(of(None, Some(show.id)).await, [together.as_slice()]);
    assert_eq!(of(None, Some(other.id)).await, [vec![alone], together]);
    assert_eq!(
        of(Some(alone), Some(show.id)).await.len(),
        0,
        "the booking is of another show"
    );
    assert_eq!(of(Some(BookingId(9_999)), None).await.len(), 0);
}

#[tokio::test]
async fn an_action_changes_jobs_in_its_states_and_no_others() {
    for action in [Action::Retry, Action::Run, Action::Cancel] {
        let db = TestDatabase::new().await;
        fill(&db.pool, 2).await;
        for state in JobState::ALL {
            let before = follow(&db.pool, &filter(Some(state))).await;
            let note = Note {
                actor: "tester",
                target: state.name(),
            };
            let ids: Vec<String> = before.iter().map(|job| job.id.clone()).collect();
            let changed = control::act(&db.database, action, &ids, note)
                .await
                .unwrap();
            if !action.allowed_in().contains(&state) {
                assert_eq!(changed, 0, "{action:?} {state:?}");
                assert_eq!(
                    follow(&db.pool, &filter(Some(state))).await.len(),
                    before.len()
                );
                continue;
            }
            assert_eq!(changed, before.len() as u64, "{action:?} {state:?}");
            for before in before {
                let after = inspect::find(&db.pool, &before.id)
                    .await
                    .unwrap()
                    .unwrap()
                    .job;
                match action {
                    Action::Retry | Action::Run => {
                        assert_eq!(after.state, JobState::Due);
                        assert!(after.attempts < after.max_attempts, "the job can be run");
                        assert_eq!(after.error, before.error, "its error is kept");
                    }
                    Action::Cancel => {
                        assert_eq!(after.state, JobState::Dead);
                        assert_eq!(after.error.as_deref(), Some("cancelled by hand"));
                    }
                }
            }
            // Repeating the action would find other jobs: inserts a new set for the next state.
            execute(&db.pool, "DELETE FROM apalis.jobs").await;
            fill(&db.pool, 2).await;
        }
        let done = control::interventions(&db.pool, None, 100).await.unwrap();
        let targets: Vec<_> = done.iter().rev().map(|done| done.target.as_str()).collect();
        assert_eq!(targets, JobState::ALL.map(JobState::name), "each is logged");
        assert!(
            done.iter()
                .all(|done| done.actor == "tester" && done.action == action.name())
        );
        let page = control::interventions(&db.pool, Some(done[1].id), 2)
            .await
            .unwrap();
        assert_eq!(
            page.iter().map(|done| done.id).collect::<Vec<_>>(),
            [done[2].id, done[3].id]
        );
    }
}

#[tokio::test]
async fn an_action_on_a_filter_changes_all_that_match() {
    let db = TestDatabase::new().await;
    fill(&db.pool, 600).await;
    let note = Note {
        actor: "tester",
        target: "all dead",
    };
    let dead = filter(Some(JobState::Dead));
    let changed = control::act_on_all(&db.database, Action::Retry, &dead, note)
        .await
        .unwrap();
    assert_eq!(changed, 1200, "in more than one chunk");
    assert_eq!(inspect::count(&db.pool, &dead, 10).await.unwrap(), 0);
    let due = filter(Some(JobState::Due));
    assert_eq!(inspect::count(&db.pool, &due, 10_000).await.unwrap(), 2400);
}

#[tokio::test]
async fn a_paused_queue_hands_nothing_out_until_it_is_resumed() {
    let db = TestDatabase::new().await;
    fill(&db.pool, 1).await;
    execute(
        &db.pool,
        "INSERT INTO apalis.workers (id, worker_type, storage_name) VALUES ('w', 'expire-bookings', 'test')",
    )
    .await;
    let take = async || {
        count(
            &db.pool,
            "SELECT count(*) FROM apalis.get_jobs('w', 'expire-bookings', 10)",
        )
        .await
    };

    assert!(
        control::pause(&db.database, QUEUE, true, "tester")
            .await
            .unwrap()
    );
    assert!(
        !control::pause(&db.database, QUEUE, true, "another")
            .await
            .unwrap(),
        "it is already paused"
    );
    assert_eq!(take().await, 0);
    let paused = inspect::queues(&db.pool)
        .await
        .unwrap()
        .remove(0)
        .paused
        .unwrap();
    assert_eq!(paused.by, "tester");

    assert!(
        control::pause(&db.database, QUEUE, false, "another")
            .await
            .unwrap()
    );
    assert_eq!(take().await, 2);
    assert!(inspect::queues(&db.pool).await.unwrap()[0].paused.is_none());
    let done = control::interventions(&db.pool, None, 10).await.unwrap();
    let done: Vec<_> = done
        .iter()
        .map(|done| (done.actor.as_str(), done.action.as_str(), done.affected))
        .collect();
    assert_eq!(
        done,
        [
            ("another", "resume", 1),
            ("another", "pause", 0),
            ("tester", "pause", 1)
        ]
    );
}

#[tokio::test]
async fn queues_that_nobody_consumes_are_seen_too() {
    let db = TestDatabase::new().await;
    fill(&db.pool, 1).await;
    execute(
        &db.pool,
        "UPDATE apalis.jobs SET job_type = 'letters' WHERE status = 'Pending'",
    )
    .await;
    control::pause(&db.database, "parcels", true, "tester")
        .await
        .unwrap();
    let queues = inspect::queues(&db.pool).await.unwrap();
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, [QUEUE, CancelShow::QUEUE, "letters", "parcels"]);
    assert_eq!(queues[2].depth[&JobState::Due], 1);
}

/// Returns how many pages of `apalis.jobs` and its indexes two pages of jobs in each state read.
async fn costs(of_each: i32) -> Vec<(JobState, i64)> {
    let db = TestDatabase::new().await;
    fill(&db.pool, of_each).await;
    // One connection, whose counters are reported before the next query.
    let pool = connect(&db.url, 1).await.unwrap().pool;
    let read = async || -> i64 {
        execute(&pool, "SELECT pg_stat_force_next_flush()").await;
        count(
            &pool,
            "SELECT (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
             FROM pg_statio_user_tables WHERE relid = 'apalis.jobs'::regclass",
        )
        .await
    };
    let mut costs = Vec::new();
    for state in JobState::ALL {
        let before = read().await;
        let mut after = None;
        for _ in 0..2 {
            let filter = filter(Some(state));
            let page = inspect::jobs(&pool, &filter, after.as_ref(), 100)
                .await
                .unwrap();
            assert_eq!(page.len(), 100);
            after = page.last().map(|last| filter.cursor(last));
        }
        costs.push((state, read().await - before));
    }
    costs
}

#[tokio::test]
async fn a_page_of_jobs_costs_the_same_however_many_there_are() {
    let (few, many) = (costs(500).await, costs(20_000).await);
    for ((state, few), (_, many)) in few.into_iter().zip(many) {
        assert!(
            many <= few * 2 + 20,
            "{state:?}: {many} pages of many jobs, {few} of few"
        );
        assert!(few < 400, "{state:?}: {few}");
    }
}
