mod bulk;

use std::sync::Arc;

use futures_util::FutureExt;
use shared::{
    batch::Batch,
    booking::locks::HeldLocks,
    postgres::{self, Session},
};
use sqlx::PgPool;
use testing::direct;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{kind::Kind, lanes::DETOURS_MAX, *};

/// State of the fake transactions, carried by the requests.
struct World {
    /// Each transaction takes one permit.
    gate: Semaphore,
    /// Requests of each transaction that ran.
    transactions: std::sync::Mutex<Vec<Vec<i64>>>,
    /// Returns whether a request may join a transaction that is past the gate.
    admits: fn(i64) -> bool,
    /// Error of a transaction that contains the request `POISON`, alone or among others.
    failure: fn() -> postgres::Error,
}

type Request = (Arc<World>, i64);

const POISON: i64 = 13;
const PANIC: i64 = 14;

fn unexpected() -> postgres::Error {
    postgres::Error::Unexpected(sqlx::Error::RowNotFound)
}

fn unknown() -> postgres::Error {
    postgres::Error::OutcomeUnknown(sqlx::Error::WorkerCrashed)
}

fn conflict() -> postgres::Error {
    postgres::Error::Conflict(sqlx::Error::RowNotFound)
}

impl World {
    fn new(failure: fn() -> postgres::Error) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            transactions: std::sync::Mutex::default(),
            admits: |_| false,
            failure,
        })
    }

    fn admitting(admits: fn(i64) -> bool) -> Arc<Self> {
        let mut world = Self::new(unexpected);
        Arc::get_mut(&mut world).unwrap().admits = admits;
        world
    }

    fn open(&self) {
        self.gate.add_permits(1000);
    }

    fn transactions(&self) -> Vec<Vec<i64>> {
        self.transactions.lock().unwrap().clone()
    }
}

/// Kind of request that is answered with ten times its number.
struct TenTimes;

impl Kind for TenTimes {
    type Request = Request;
    type Answer = i64;
    const NAME: &'static str = "test";

    async fn run(
        _: &mut Session,
        batch: &mut Batch<'_, Request>,
    ) -> Result<Vec<i64>, postgres::Error> {
        let world = batch.members()[0].0.clone();
        let begun = {
            let mut transactions = world.transactions.lock().unwrap();
            transactions.push(numbers(batch));
            transactions.len() - 1
        };
        world.gate.acquire().await.unwrap().forget();
        batch.admit(|request| (world.admits)(request.1));
        let numbers = numbers(batch);
        world.transactions.lock().unwrap()[begun].clone_from(&numbers);
        assert!(!numbers.contains(&PANIC), "the request PANIC");
        if numbers.contains(&POISON) {
            return Err((world.failure)());
        }
        Ok(numbers.into_iter().map(|number| number * 10).collect())
    }

    /// Reports no missing locks.
    async fn find_held_locks(
        _: &mut Session,
        requests: &[Request],
    ) -> Result<HeldLocks, postgres::Error> {
        Ok(vec![None; requests.len()])
    }
}

fn numbers(batch: &Batch<'_, Request>) -> Vec<i64> {
    batch.members().iter().map(|request| request.1).collect()
}

fn start(batch_max: usize, queue_max: usize) -> Arc<GroupCommit<TenTimes>> {
    start_sharing(Sharing::Any, batch_max, queue_max)
}

fn start_sharing(
    sharing: Sharing,
    batch_max: usize,
    queue_max: usize,
) -> Arc<GroupCommit<TenTimes>> {
    let pool = PgPool::connect_lazy("postgres:///never-connected").unwrap();
    let database = direct(&pool);
    // On the test's own thread, so that the test knows what the lanes have done.
    let lanes = Lanes {
        limits: Limits {
            batch_max,
            lanes: 1,
            queue_max,
        },
        database: database.clone(),
        direct: database,
        thread: Handle::current(),
        runtime: None,
        detours: Arc::new(Semaphore::new(DETOURS_MAX)),
    };
    Arc::new(GroupCommit::start(&lanes, sharing))
}

/// Returns the key of a request: its last digit.
fn key(number: i64) -> i64 {
    number % 10
}

/// Submits each number from its own task, one after another.
///
/// The first request is at the gate before the second is submitted.
async fn submit(
    group: &Arc<GroupCommit<TenTimes>>,
    world: &Arc<World>,
    numbers: &[i64],
) -> Vec<tokio::task::JoinHandle<Result<i64, SubmitError>>> {
    let mut tasks = Vec::new();
    for &number in numbers {
        let (group, request) = (group.clone(), (world.clone(), number));
        tasks.push(tokio::spawn(async move {
            group.submit(key(number), request).await
        }));
        // The test's runtime has one thread: after the yield, the task has submitted its request
        // and the lane has polled its queue.
        while world.transactions().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }
    tasks
}

async fn answers(
    tasks: Vec<tokio::task::JoinHandle<Result<i64, SubmitError>>>,
) -> Vec<Result<i64, SubmitError>> {
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn requests_that_wait_together_share_the_next_transaction_in_order() {
    let (world, group) = (World::new(unexpected), start(3, 100));
    let tasks = submit(&group, &world, &[1, 5, 4, 3, 2]).await;
    world.open();
    let answers: Vec<i64> = answers(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(answers, [10, 50, 40, 30, 20]);
    assert_eq!(world.transactions(), [vec![1], vec![5, 4, 3], vec![2]]);
}

/// Submits the numbers so that those after the first two can join a transaction.
///
/// A lone request runs on its caller's thread, where no other can join it. So the second
/// transaction is the first one of the lane.
async fn submit_late(
    group: &Arc<GroupCommit<TenTimes>>,
    world: &Arc<World>,
    numbers: &[i64],
) -> Vec<tokio::task::JoinHandle<Result<i64, SubmitError>>> {
    let mut tasks = submit(group, world, &numbers[..2]).await;
    world.gate.add_permits(1);
    while world.transactions().len() < 2 {
        tokio::task::yield_now().await;
    }
    tasks.extend(submit(group, world, &numbers[2..]).await);
    tasks
}

#[tokio::test]
async fn those_who_come_while_a_transaction_waits_and_fit_join_it() {
    let world = World::admitting(|number| number < 10);
    let group = start(100, 100);
    let tasks = submit_late(&group, &world, &[1, 2, 3, 4, 20, 5]).await;
    tasks[2].abort();
    tokio::task::yield_now().await;
    world.open();
    let answers: Vec<_> = futures_util::future::join_all(tasks).await;
    for (answer, expected) in answers.into_iter().zip([10, 20, 0, 40, 200, 50]) {
        assert_eq!(answer.map_or(0, Result::unwrap), expected);
    }
    assert_eq!(world.transactions(), [vec![1], vec![2, 4, 5], vec![20]]);
}

#[tokio::test]
async fn requests_with_different_keys_can_be_kept_apart() {
    let world = World::admitting(|_| true);
    let group = start_sharing(Sharing::SameKey, 3, 100);
    let tasks = submit_late(&group, &world, &[1, 2, 13, 22, 23, 32, 42, 33]).await;
    tasks[2].abort();
    tokio::task::yield_now().await;
    world.open();
    let answers = futures_util::future::join_all(tasks).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    // 42 would be the fourth request of a batch of at most 3. Requests with another key wait for a
    // transaction of their own, and none of them for ever.
    let expected = [vec![1], vec![2, 22, 32], vec![23, 33], vec![42]];
    assert_eq!(world.transactions(), expected);
}

#[tokio::test]
async fn a_batch_that_others_joined_is_no_longer_than_it_may_be() {
    let (world, group) = (World::admitting(|_| true), start(2, 100));
    let tasks = submit_late(&group, &world, &[1, 2, 3, 4]).await;
    world.open();
    assert!(answers(tasks).await.iter().all(Result::is_ok));
    assert_eq!(world.transactions(), [vec![1], vec![2, 3], vec![4]]);
}

#[tokio::test]
async fn one_that_joined_and_is_poisoned_fails_alone() {
    let (world, group) = (World::admitting(|_| true), start(10, 100));
    let tasks = submit_late(&group, &world, &[1, 2, POISON, 3]).await;
    world.open();
    let answers = answers(tasks).await;
    assert!(matches!(answers[2], Err(SubmitError::Failed(_))));
    for (answer, expected) in [(0, 10), (1, 20), (3, 30)] {
        assert_eq!(*answers[answer].as_ref().unwrap(), expected);
    }
}

#[tokio::test]
async fn with_a_batch_of_one_every_request_has_its_own_transaction_at_once() {
    let (world, group) = (World::new(unexpected), start(1, 100));
    let tasks = submit(&group, &world, &[1, 2, 3]).await;
    assert_eq!(
        world.transactions(),
        [vec![1], vec![2], vec![3]],
        "no request waits for another"
    );
    world.open();
    assert!(answers(tasks).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_poisoned_member_fails_alone() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    let tasks = submit(&group, &world, &[1, 2, POISON, 3]).await;
    world.open();
    let answers = answers(tasks).await;
    assert!(matches!(answers[2], Err(SubmitError::Failed(_))));
    for (answer, expected) in [(0, 10), (1, 20), (3, 30)] {
        assert_eq!(*answers[answer].as_ref().unwrap(), expected);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_told_to_all_and_never_repeated() {
    let (world, group) = (World::new(unknown), start(10, 100));
    let tasks = submit(&group, &world, &[1, 2, POISON]).await;
    world.open();
    let answers = answers(tasks).await;
    assert!(answers[0].is_ok());
    for answer in &answers[1..] {
        let Err(SubmitError::Failed(error)) = answer else {
            panic!("{answer:?}");
        };
        assert!(matches!(**error, postgres::Error::OutcomeUnknown(_)));
    }
    assert_eq!(world.transactions(), [vec![1], vec![2, POISON]]);
}

#[tokio::test]
async fn a_lock_that_cannot_be_had_is_not_waited_for_once_more_by_each_member() {
    let (world, group) = (World::new(conflict), start(10, 100));
    let tasks = submit(&group, &world, &[1, 2, POISON]).await;
    world.open();
    assert!(answers(tasks).await[1..].iter().all(Result::is_err));
    assert_eq!(world.transactions(), [vec![1], vec![2, POISON]]);
}

#[tokio::test]
async fn a_full_queue_sheds_at_once() {
    let (world, group) = (World::new(unexpected), start(10, 2));
    let tasks = submit(&group, &world, &[1, 2, 3]).await;
    for _ in 0..3 {
        let shed = group.submit(1, (world.clone(), 4)).await;
        assert!(matches!(shed, Err(SubmitError::Overloaded)), "{shed:?}");
    }
    world.open();
    assert!(answers(tasks).await.iter().all(Result::is_ok));
    assert!(
        group.submit(1, (world, 5)).await.is_ok(),
        "the queue has room again"
    );
}

#[tokio::test]
async fn callers_that_go_away_change_nothing_for_the_rest() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    let tasks = submit(&group, &world, &[1, 2, 3, 4, 5]).await;
    // The first request is already in a transaction; the third and the fifth still wait.
    for gone in [0, 2, 4] {
        tasks[gone].abort();
    }
    tokio::task::yield_now().await;
    world.open();
    for (task, expected) in tasks
        .into_iter()
        .zip([None, Some(20), None, Some(40), None])
    {
        assert_eq!(task.await.ok().map(Result::unwrap), expected);
    }
    assert_eq!(world.transactions(), [vec![1], vec![2, 4]]);
}

#[tokio::test]
async fn a_panic_loses_its_batch_and_not_the_lane() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    let tasks = submit(&group, &world, &[1, PANIC, 2]).await;
    world.open();
    let answers = answers(tasks).await;
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(SubmitError::Lost)));
    assert!(matches!(answers[2], Err(SubmitError::Lost)));
    assert_eq!(group.submit(1, (world, 3)).await.unwrap(), 30);
}

#[tokio::test]
async fn a_lone_request_is_run_by_its_caller_at_once() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    world.open();
    let answer = group.submit(1, (world, 1)).now_or_never();
    assert!(matches!(answer, Some(Ok(10))), "no other task was involved");
}
