use super::*;
use proptest::prelude::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn request(show_id: i64, number_of_seats: i32) -> Request {
    Request {
        show_id,
        user_name: "Alice".to_owned(),
        number_of_seats,
    }
}

fn inventories(shows: &[(i64, i32)]) -> BTreeMap<i64, Inventory> {
    shows
        .iter()
        .map(|&(show_id, available_seats)| {
            let inventory = Inventory {
                show_id,
                available_seats,
                hold_seconds: 120,
            };
            (show_id, inventory)
        })
        .collect()
}

#[test]
fn first_come_first_served_and_a_smaller_request_may_still_fit() {
    let mut shows = inventories(&[(1, 5)]);
    let requests = [request(1, 4), request(1, 2), request(1, 1), request(2, 1)];
    let until = now() + chrono::TimeDelta::seconds(120);
    assert_eq!(
        decide(&mut shows, &requests, now()),
        [
            Ok(until),
            Err(Refusal::NotEnoughSeats {
                show_id: 1,
                requested: 2,
                available: 1
            }),
            Ok(until),
            Err(Refusal::ShowNotFound { show_id: 2 }),
        ]
    );
    assert_eq!(shows[&1].available_seats, 0);
}

proptest! {
    /// Invariant 1, for every batch: no show gives more seats than it has, and no seat is lost.
    #[test]
    fn a_batch_never_oversells(
        seats in proptest::collection::vec(0..60_i32, 1..4),
        wanted in proptest::collection::vec((0..5_i64, 1..20_i32), 0..40),
    ) {
        let before: Vec<(i64, i32)> = (0..).zip(seats).collect();
        let mut shows = inventories(&before);
        let requests: Vec<Request> = wanted.iter().map(|&(show, n)| request(show, n)).collect();
        let decisions = decide(&mut shows, &requests, now());
        prop_assert_eq!(decisions.len(), requests.len());
        for (show_id, available) in before {
            let taken: i32 = requests
                .iter()
                .zip(&decisions)
                .filter(|(request, decision)| request.show_id == show_id && decision.is_ok())
                .map(|(request, _)| request.number_of_seats)
                .sum();
            prop_assert_eq!(shows[&show_id].available_seats, available - taken);
            prop_assert!(taken <= available);
        }
    }
}
