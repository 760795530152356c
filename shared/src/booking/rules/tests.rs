use super::*;
use proptest::prelude::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

/// Creates a booking made at second 0 whose deadline is second 120.
fn booking(status: BookingStatus) -> Booking {
    Booking {
        id: BookingId(50),
        show_id: ShowId(1),
        batch_id: BookingId(50),
        user_name: "Alice".to_owned(),
        number_of_seats: 2,
        released_seats: None,
        from: None,
        reference: None,
        metadata: None,
        status,
        expires_at: at(120),
        is_extended: false,
        extendable_until: at(900),
        read_at: at(0),
        created_at: at(0),
        resolved_at: (status != BookingStatus::Pending).then(|| at(60)),
    }
}

const EXPIRED: Refusal = Refusal::HoldExpired {
    booking_id: BookingId(50),
    expires_at: DateTime::from_timestamp(1_700_000_120, 0).unwrap(),
};
const CANCELLED: Refusal = Refusal::BookingCancelled {
    booking_id: BookingId(50),
};

#[test]
fn confirm_by_state_and_time() {
    use BookingStatus::*;
    use Effect::*;
    for (status, now, expected) in [
        (Pending, 0, Ok(Changed)),
        (Pending, 119, Ok(Changed)),
        (Pending, 120, Err(EXPIRED)),
        (Pending, 121, Err(EXPIRED)),
        (Confirmed, 119, Ok(Unchanged)),
        (Confirmed, 121, Ok(Unchanged)),
        (Failed, 119, Err(EXPIRED)),
        (Cancelled, 119, Err(CANCELLED)),
    ] {
        let mut booking = booking(status);
        assert_eq!(
            booking.confirm(None, at(now)),
            expected,
            "{status} at {now}"
        );
        if expected.is_ok() {
            assert_eq!(booking.status, Confirmed);
        }
    }
}

#[test]
fn cancel_by_state_and_time() {
    use BookingStatus::*;
    use Effect::*;
    for (status, now, expected) in [
        (Pending, 119, Ok(Changed)),
        (Pending, 120, Err(EXPIRED)),
        (Confirmed, 119, Ok(Changed)),
        (Confirmed, 500, Ok(Changed)),
        (Failed, 119, Err(EXPIRED)),
        (Cancelled, 119, Ok(Unchanged)),
        (Cancelled, 500, Ok(Unchanged)),
    ] {
        let mut booking = booking(status);
        assert_eq!(booking.cancel(None, at(now)), expected, "{status} at {now}");
        if expected.is_ok() {
            assert_eq!(booking.status, Cancelled);
        }
    }
}

#[test]
fn a_part_is_cancelled_or_confirmed_by_state_and_time() {
    use BookingStatus::*;
    use Effect::*;
    let fewer = |requested| Refusal::FewerSeatsBooked {
        booking_id: BookingId(50),
        requested,
        booked: 2,
    };
    let confirmed = Refusal::BookingConfirmed {
        booking_id: BookingId(50),
    };
    // Status, seats, time; then the outcome, and the status and seats afterwards.
    for (status, seats, now, expected, after) in [
        (Pending, 1, 119, Ok(Changed), (Pending, 1, Some(1))),
        (Pending, 2, 119, Ok(Changed), (Cancelled, 2, None)),
        (Pending, 3, 119, Err(fewer(3)), (Pending, 2, None)),
        (Pending, 1, 120, Err(EXPIRED), (Pending, 2, None)),
        (Confirmed, 1, 500, Ok(Changed), (Confirmed, 1, Some(1))),
        (Confirmed, 2, 500, Ok(Changed), (Cancelled, 2, None)),
        (Failed, 1, 119, Err(EXPIRED), (Failed, 2, None)),
        (Cancelled, 1, 119, Err(CANCELLED), (Cancelled, 2, None)),
        (Cancelled, 2, 119, Err(CANCELLED), (Cancelled, 2, None)),
    ] {
        let mut booking = booking(status);
        let cancelled = booking.cancel(Some(seats), at(now));
        assert_eq!(cancelled, expected, "cancel {seats} of {status} at {now}");
        let is = (
            booking.status,
            booking.number_of_seats,
            booking.released_seats,
        );
        assert_eq!(is, after, "cancel {seats} of {status} at {now}");
    }
    for (status, seats, now, expected, after) in [
        (Pending, 1, 119, Ok(Changed), (Confirmed, 1, Some(1))),
        (Pending, 2, 119, Ok(Changed), (Confirmed, 2, None)),
        (Pending, 3, 119, Err(fewer(3)), (Pending, 2, None)),
        (Pending, 1, 120, Err(EXPIRED), (Pending, 2, None)),
        (Confirmed, 2, 500, Ok(Unchanged), (Confirmed, 2, None)),
        (Confirmed, 1, 500, Err(confirmed), (Confirmed, 2, None)),
        (Cancelled, 1, 119, Err(CANCELLED), (Cancelled, 2, None)),
    ] {
        let mut booking = booking(status);
        let result = booking.confirm(Some(seats), at(now));
        assert_eq!(result, expected, "confirm {seats} of {status} at {now}");
        let is = (
            booking.status,
            booking.number_of_seats,
            booking.released_seats,
        );
        assert_eq!(is, after, "confirm {seats} of {status} at {now}");
    }
}

#[test]
fn extend_by_state_and_time() {
    use BookingStatus::*;
    use Effect::*;
    let too_long = |seconds| Refusal::ExtensionTooLong {
        booking_id: BookingId(50),
        extendable_until: at(900),
        seconds,
    };
    let confirmed = Refusal::BookingConfirmed {
        booking_id: BookingId(50),
    };
    for (status, now, seconds, expected, deadline) in [
        (Pending, 100, 60, Ok(Changed), 160),
        (Pending, 100, 800, Ok(Changed), 900),
        (Pending, 100, 801, Err(too_long(800)), 120),
        (Pending, 0, 120, Ok(Unchanged), 120),
        (Pending, 0, 60, Ok(Unchanged), 120),
        (Pending, 120, 60, Err(EXPIRED), 120),
        (Failed, 100, 60, Err(EXPIRED), 120),
        (Confirmed, 100, 60, Err(confirmed), 120),
        (Cancelled, 100, 60, Err(CANCELLED), 120),
    ] {
        let mut booking = booking(status);
        let is = booking.extend(seconds, at(now));
        assert_eq!(is, expected, "{status} at {now} by {seconds}");
        assert_eq!(
            booking.expires_at,
            at(deadline),
            "{status} at {now} by {seconds}"
        );
        assert_eq!(booking.status, status);
    }
}

#[test]
fn each_change_makes_another_version() {
    let mut held = booking(BookingStatus::Pending);
    let mut versions = vec![held.version()];
    held.extend(300, at(1)).unwrap();
    versions.push(held.version());
    for _ in 0..2 {
        held.number_of_seats += 1;
        held.cancel(Some(1), at(2)).unwrap();
        versions.push(held.version());
    }
    let mut failed = held.clone();
    failed.expire(at(500));
    versions.push(failed.as_of(at(501)).version());
    held.confirm(None, at(2)).unwrap();
    versions.push(held.version());
    held.cancel(None, at(3)).unwrap();
    versions.push(held.version());
    let mut distinct = versions.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), versions.len(), "{versions:?}");
    assert_eq!(
        booking(BookingStatus::Pending).as_of(at(50)).version(),
        versions[0],
        "time alone changes nothing"
    );
}

#[test]
fn expire_by_state_and_time() {
    use BookingStatus::*;
    use Effect::*;
    for (status, now, expected, after) in [
        (Pending, 119, Unchanged, Pending),
        (Pending, 120, Changed, Failed),
        (Pending, 500, Changed, Failed),
        (Confirmed, 500, Unchanged, Confirmed),
        (Cancelled, 500, Unchanged, Cancelled),
        (Failed, 500, Unchanged, Failed),
    ] {
        let mut booking = booking(status);
        assert_eq!(booking.expire(at(now)), expected, "{status} at {now}");
        assert_eq!(booking.status, after, "{status} at {now}");
    }
}

#[test]
fn a_hold_past_its_deadline_reads_as_failed_at_that_deadline() {
    let early = booking(BookingStatus::Pending).as_of(at(119));
    assert_eq!(early.status, BookingStatus::Pending);
    assert_eq!(early.seconds_left(), Some(1));

    let late = booking(BookingStatus::Pending).as_of(at(500));
    assert_eq!(late.status, BookingStatus::Failed);
    assert_eq!(late.resolved_at, Some(at(120)));

    // It reads the same once a worker has failed it.
    let mut written = booking(BookingStatus::Pending);
    written.expire(at(500));
    assert_eq!(written.as_of(at(500)), late);
}

#[test]
fn every_status_has_its_word() {
    for word in ["PENDING", "CONFIRMED", "FAILED", "CANCELLED"] {
        let status: BookingStatus = word.parse().unwrap();
        assert_eq!(status.to_string(), word);
        assert_eq!(serde_json::to_value(status).unwrap(), word);
    }
    assert!("pending".parse::<BookingStatus>().is_err());
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Confirm(Option<i32>),
    Cancel(Option<i32>),
    Expire,
}

impl Request {
    fn apply(self, booking: &mut Booking, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self {
            Self::Confirm(seats) => booking.confirm(seats, now),
            Self::Cancel(seats) => booking.cancel(seats, now),
            Self::Expire => Ok(booking.expire(now)),
        }
    }
}

/// Generates requests at times on both sides of the deadline at second 120.
fn requests_at_any_time() -> impl Strategy<Value = Vec<(Request, i64)>> {
    let seats = proptest::option::of(1..8_i32);
    let request = prop_oneof![
        seats.clone().prop_map(Request::Confirm),
        seats.prop_map(Request::Cancel),
        Just(Request::Expire)
    ];
    proptest::collection::vec((request, 0..240_i64), 1..12)
}

/// Generates requests whose times ascend, as the database's clock mostly does.
fn requests() -> impl Strategy<Value = Vec<(Request, i64)>> {
    requests_at_any_time().prop_map(|mut requests| {
        requests.sort_by_key(|(_, now)| *now);
        requests
    })
}

proptest! {
    /// Holds however the clock is set in between.
    #[test]
    fn times_of_a_booking_never_run_backwards(history in requests_at_any_time()) {
        let mut booking = booking(BookingStatus::Pending);
        booking.created_at = at(60);
        let mut last = booking.created_at;
        for (request, now) in history {
            let before = booking.status;
            let effect = request.apply(&mut booking, at(now));
            if effect == Ok(Effect::Changed) && booking.status != before {
                let resolved_at = booking.resolved_at.unwrap();
                prop_assert!(resolved_at >= last && resolved_at >= at(now));
                last = resolved_at;
            }
            let left = booking.clone().as_of(at(now)).seconds_left();
            prop_assert!(left.is_none_or(|left| (0..=60).contains(&left)));
        }
    }

    /// Invariant 2 holds for every history of requests, and no seat comes back twice.
    #[test]
    fn a_booking_leaves_pending_once_and_at_the_right_time(history in requests()) {
        let mut booking = booking(BookingStatus::Pending);
        booking.number_of_seats = 5;
        let mut given_back = 0;
        for (request, now) in history {
            let before = booking.clone();
            let effect = request.apply(&mut booking, at(now));
            if effect != Ok(Effect::Changed) {
                prop_assert_eq!(&booking, &before, "a refused or repeated request changes nothing");
                continue;
            }
            prop_assert_ne!(booking.version(), before.version());
            match (before.status, booking.status) {
                (BookingStatus::Pending, BookingStatus::Confirmed) => prop_assert!(now < 120),
                (BookingStatus::Pending, BookingStatus::Failed) => prop_assert!(now >= 120),
                (BookingStatus::Pending, BookingStatus::Cancelled) => prop_assert!(now < 120),
                (BookingStatus::Confirmed, BookingStatus::Cancelled) => {}
                (BookingStatus::Pending | BookingStatus::Confirmed, same) if same == before.status => {
                    prop_assert!(matches!(request, Request::Cancel(Some(_))));
                    prop_assert!(booking.number_of_seats < before.number_of_seats);
                }
                (from, to) => prop_assert!(false, "{} -> {}", from, to),
            }
            if booking.status != before.status {
                prop_assert_eq!(booking.resolved_at, Some(at(now)));
            }
            let freed = before.seats_in_use() - booking.seats_in_use();
            prop_assert!(freed >= 0);
            given_back += freed;
            prop_assert!(booking.number_of_seats >= 1);
            let has_had = booking.number_of_seats + booking.released_seats.unwrap_or_default();
            prop_assert_eq!(has_had, 5, "no seat is lost");
            prop_assert_eq!(given_back + booking.seats_in_use(), 5, "each comes back once at most");
        }
    }
}
