//! Several requests that are submitted at once.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// Submits the numbers at once.
async fn submit_all(
    group: &GroupCommit<TenTimes>,
    world: &Arc<World>,
    numbers: &[i64],
) -> Vec<Result<i64, SubmitError>> {
    let requests = numbers.iter().map(|n| (key(*n), (world.clone(), *n)));
    let deadline = Instant::now() + Duration::from_secs(10);
    group.submit_all(requests.collect(), deadline).await
}

fn unwrap_all(answers: Vec<Result<i64, SubmitError>>) -> Vec<i64> {
    answers.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn requests_submitted_at_once_share_transactions_in_order() {
    let (world, group) = (World::new(unexpected), start(3, 100));
    world.open();
    let answers = submit_all(&group, &world, &[5, 4, 3, 2, 1]).await;
    assert_eq!(unwrap_all(answers), [50, 40, 30, 20, 10]);
    assert_eq!(world.transactions(), [vec![5, 4, 3], vec![2, 1]]);
    let answers = submit_all(&group, &world, &[]).await;
    assert_eq!(unwrap_all(answers), [0; 0]);
}

#[tokio::test]
async fn requests_with_the_same_key_share_a_transaction_if_keys_are_kept_apart() {
    let world = World::new(unexpected);
    let group = start_sharing(Sharing::SameKey, 10, 100);
    world.open();
    let answers = submit_all(&group, &world, &[1, 2, 11, 12, 21]).await;
    assert_eq!(unwrap_all(answers), [10, 20, 110, 120, 210]);
    assert_eq!(world.transactions(), [vec![1, 11, 21], vec![2, 12]]);
}

#[tokio::test]
async fn requests_that_do_not_fit_into_the_queue_are_shed_and_the_others_run() {
    let (world, group) = (World::new(unexpected), start(10, 6));
    world.open();
    let answers = submit_all(&group, &world, &[1, 2, 3, 4, 5]).await;
    for (answer, number) in answers.iter().zip([1, 2, 3]) {
        assert_eq!(*answer.as_ref().unwrap(), number * 10);
    }
    for shed in &answers[3..] {
        assert!(matches!(shed, Err(SubmitError::Overloaded)), "{shed:?}");
    }
    let again = submit_all(&group, &world, &[6, 7, 8]).await;
    assert_eq!(unwrap_all(again), [60, 70, 80], "the queue has room again");
}

#[tokio::test]
async fn requests_submitted_at_once_leave_half_of_the_queue_to_others() {
    let (world, group) = (World::new(unexpected), start(10, 4));
    // In a transaction, so that the others wait.
    let mut tasks = submit(&group, &world, &[1]).await;
    let bulk = tokio::spawn({
        let (group, world) = (group.clone(), world.clone());
        async move { submit_all(&group, &world, &[2, 3, 4, 5]).await }
    });
    tokio::task::yield_now().await;
    tasks.extend(submit(&group, &world, &[6, 7]).await);
    world.open();
    assert!(answers(tasks).await.iter().all(Result::is_ok));
    let of_bulk = bulk.await.unwrap();
    assert_eq!(of_bulk.iter().filter(|answer| answer.is_ok()).count(), 2);
}

#[tokio::test]
async fn a_poisoned_request_fails_alone_among_requests_submitted_at_once() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    world.open();
    let answers = submit_all(&group, &world, &[1, POISON, 2]).await;
    assert_eq!(*answers[0].as_ref().unwrap(), 10);
    assert!(matches!(answers[1], Err(SubmitError::Failed(_))));
    assert_eq!(*answers[2].as_ref().unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_answer_at_the_deadline_time_out() {
    let (world, group) = (World::new(unexpected), start(2, 100));
    world.gate.add_permits(1);
    let answers = submit_all(&group, &world, &[1, 2, 3, 4]).await;
    assert_eq!(*answers[0].as_ref().unwrap(), 10);
    assert_eq!(*answers[1].as_ref().unwrap(), 20);
    for late in &answers[2..] {
        assert!(matches!(late, Err(SubmitError::TimedOut)), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_batch_of_one_requests_run_in_order_until_the_deadline() {
    let (world, group) = (World::new(unexpected), start(1, 100));
    world.gate.add_permits(2);
    let answers = submit_all(&group, &world, &[3, 2, 1, 0]).await;
    assert_eq!(*answers[0].as_ref().unwrap(), 30);
    assert_eq!(*answers[1].as_ref().unwrap(), 20);
    assert!(matches!(answers[2], Err(SubmitError::TimedOut)));
    assert!(matches!(answers[3], Err(SubmitError::Overloaded)));
    assert_eq!(world.transactions(), [vec![3], vec![2], vec![1]]);
}
