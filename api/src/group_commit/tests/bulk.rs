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
async fn what_is_submitted_at_once_shares_transactions_and_keeps_its_order() {
    let (world, group) = (World::new(unexpected), start(3, 100));
    world.open();
    let answers = submit_all(&group, &world, &[5, 4, 3, 2, 1]).await;
    assert_eq!(unwrap_all(answers), [50, 40, 30, 20, 10]);
    assert_eq!(world.transactions(), [vec![5, 4, 3], vec![2, 1]]);
    let answers = submit_all(&group, &world, &[]).await;
    assert_eq!(unwrap_all(answers), [0; 0]);
}

#[tokio::test]
async fn those_of_a_key_share_a_transaction_where_keys_are_kept_apart() {
    let world = World::new(unexpected);
    let group = start_sharing(Sharing::SameKey, 10, 100);
    world.open();
    let answers = submit_all(&group, &world, &[1, 2, 11, 12, 21]).await;
    assert_eq!(unwrap_all(answers), [10, 20, 110, 120, 210]);
    assert_eq!(world.transactions(), [vec![1, 11, 21], vec![2, 12]]);
}

#[tokio::test]
async fn those_that_do_not_fit_into_the_queue_are_shed_and_the_others_run() {
    let (world, group) = (World::new(unexpected), start(10, 3));
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
async fn one_that_is_poisoned_fails_alone_among_those_of_a_bulk() {
    let (world, group) = (World::new(unexpected), start(10, 100));
    world.open();
    let answers = submit_all(&group, &world, &[1, POISON, 2]).await;
    assert_eq!(*answers[0].as_ref().unwrap(), 10);
    assert!(matches!(answers[1], Err(SubmitError::Failed(_))));
    assert_eq!(*answers[2].as_ref().unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_those_without_an_answer_are_given_up() {
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
async fn with_a_batch_of_one_they_run_one_after_the_other_until_the_deadline() {
    let (world, group) = (World::new(unexpected), start(1, 100));
    world.gate.add_permits(2);
    let answers = submit_all(&group, &world, &[3, 2, 1, 0]).await;
    assert_eq!(*answers[0].as_ref().unwrap(), 30);
    assert_eq!(*answers[1].as_ref().unwrap(), 20);
    assert!(matches!(answers[2], Err(SubmitError::TimedOut)));
    assert!(matches!(answers[3], Err(SubmitError::Overloaded)));
    assert_eq!(world.transactions(), [vec![3], vec![2], vec![1]]);
}
