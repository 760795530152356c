use super::*;
use crate::show::Inventory;
use proptest::prelude::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn request(show_id: i64, number_of_seats: i32) -> Request {
    Request::new(ShowId(show_id), "Alice", number_of_seats)
}

/// Creates a request of this user with this key.
fn keyed(user: &str, seats: i32, key: &str) -> Request {
    let key = Key {
        owner: 0,
        text: key.to_owned(),
    };
    Request {
        user_name: user.to_owned(),
        claim: Some(Claim::new(key, "reserve", &(user, seats))),
        ..request(1, seats)
    }
}

fn ledger(shows: &[(i64, i32)]) -> Ledger {
    let inventories = shows.iter().map(|&(show_id, available_seats)| {
        let inventory = Inventory {
            show_id: ShowId(show_id),
            generation: 0,
            available_seats,
            hold_seconds: 120,
            max_hold_seconds: 900,
            max_seats_per_booking: 1000,
            max_seats_per_user: None,
            sale: show::Sale::ALWAYS,
        };
        (ShowId(show_id), inventory)
    });
    let shows = show::Locked {
        inventories: inventories.collect(),
        locked_at: None,
    };
    Ledger {
        shows,
        ..Ledger::default()
    }
}

const HOLD: Decision = Decision::Hold(Hold {
    expires_at: DateTime::from_timestamp(1_700_000_120, 0).unwrap(),
    extendable_until: DateTime::from_timestamp(1_700_000_900, 0).unwrap(),
    counts_per_user: false,
});

#[test]
fn first_come_first_served_and_a_smaller_request_may_still_fit() {
    let mut ledger = ledger(&[(1, 5)]);
    let requests = [request(1, 4), request(1, 2), request(1, 1), request(2, 1)];
    assert_eq!(
        lacking_seats(&ledger.shows, &requests),
        BTreeMap::from([(ShowId(1), 2)])
    );
    assert_eq!(
        ledger.decide(&requests, now()),
        [
            Ok(HOLD),
            Err(Refusal::NotEnoughSeats {
                show_id: ShowId(1),
                requested: 2,
                available: 1
            }),
            Ok(HOLD),
            Err(Refusal::ShowNotFound { show_id: ShowId(2) }),
        ]
    );
    assert_eq!(ledger.shows.inventories[&ShowId(1)].available_seats, 0);
}

#[test]
fn a_key_books_once_and_only_for_what_it_was_first_used_for() {
    let mut ledger = ledger(&[(1, 10)]);
    let requests = [
        keyed("Alice", 2, "a"),
        keyed("Alice", 2, "a"),
        keyed("Alice", 3, "a"),
        keyed("Bob", 2, "b"),
    ];
    assert_eq!(
        ledger.decide(&requests, now()),
        [
            Ok(HOLD),
            Ok(Decision::SameAs(0)),
            Err(Refusal::KeyReused),
            Ok(HOLD),
        ]
    );
    assert_eq!(ledger.shows.inventories[&ShowId(1)].available_seats, 6);
}

#[test]
fn a_refused_request_does_not_use_its_key_up() {
    let mut ledger = ledger(&[(1, 2)]);
    let requests = [keyed("Alice", 3, "a"), keyed("Alice", 2, "a")];
    let decisions = ledger.decide(&requests, now());
    assert!(matches!(decisions[0], Err(Refusal::NotEnoughSeats { .. })));
    assert_eq!(decisions[1], Ok(HOLD));
}

#[test]
fn limits_of_a_show_are_checked_before_its_seats() {
    let mut ledger = ledger(&[(1, 1)]);
    let show = ledger.shows.inventories.get_mut(&ShowId(1)).unwrap();
    show.max_seats_per_booking = 4;
    show.max_seats_per_user = Some(5);
    ledger.taken.insert((ShowId(1), "alice".to_owned()), 4);
    let requests = [request(1, 5), request(1, 2), request(1, 1), request(1, 1)];
    let limit = |requested, taken| {
        Err(Refusal::UserLimitReached {
            show_id: ShowId(1),
            requested,
            max_seats_per_user: 5,
            taken,
        })
    };
    let decisions = ledger.decide(&requests, now());
    assert_eq!(
        decisions[0],
        Err(Refusal::TooManySeats {
            show_id: ShowId(1),
            requested: 5,
            max_seats_per_booking: 4
        })
    );
    assert_eq!(decisions[1], limit(2, 4));
    assert!(decisions[2].is_ok());
    assert_eq!(decisions[3], limit(1, 5));
}

proptest! {
    /// Invariant 1 holds for every batch: no show gives more seats than it has, and no seat is
    /// lost.
    #[test]
    fn a_batch_never_oversells(
        seats in proptest::collection::vec(0..60_i32, 1..4),
        wanted in proptest::collection::vec((0..5_i64, 1..20_i32), 0..40),
    ) {
        let before: Vec<(i64, i32)> = (0..).zip(seats).collect();
        let mut ledger = ledger(&before);
        let requests: Vec<Request> = wanted.iter().map(|&(show, n)| request(show, n)).collect();
        let decisions = ledger.decide(&requests, now());
        prop_assert_eq!(decisions.len(), requests.len());
        for (show_id, available) in before {
            let taken: i32 = requests
                .iter()
                .zip(&decisions)
                .filter(|(request, decision)| request.show_id == ShowId(show_id) && decision.is_ok())
                .map(|(request, _)| request.number_of_seats)
                .sum();
            prop_assert_eq!(ledger.shows.inventories[&ShowId(show_id)].available_seats, available - taken);
            prop_assert!(taken <= available);
        }
    }
}
