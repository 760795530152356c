use super::{
    super::acknowledgements::{Act, Last},
    *,
};

/// Returns a show of ten seats with one-seat bookings by turns 1, 2, …, in these statuses.
fn listed(statuses: &[BookingStatus]) -> Listed {
    let bookings: Vec<Booking> = (1..)
        .zip(statuses)
        .map(|(id, &status)| Booking {
            id,
            user_name: format!("user {id}"),
            number_of_seats: 1,
            status,
        })
        .collect();
    let taken = statuses
        .iter()
        .filter(|s| matches!(s, BookingStatus::Pending | BookingStatus::Confirmed))
        .count()
        .cast_signed() as i64;
    Listed {
        sum: Verification {
            seats: 10,
            available: 10 - taken,
            taken,
            bookings: bookings.len(),
            faults: Vec::new(),
        },
        bookings,
    }
}

fn acks(lasts: &[Last]) -> Acknowledgements {
    let acknowledged = (1..)
        .zip(lasts)
        .map(|(booking_id, &last)| Acknowledged {
            booking_id,
            turn: booking_id.unsigned_abs(),
            last,
        })
        .collect();
    Acknowledgements {
        acknowledged,
        maybe_done: Vec::new(),
    }
}

#[track_caller]
fn one_fault(listed: &Listed, acks: &Acknowledgements, expected: &Expected, what: &str) {
    let faults = find_faults(listed, acks, expected);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with(what), "{faults:?}");
}

#[test]
fn what_agrees_with_what_was_told_has_no_fault() {
    use BookingStatus::{Cancelled, Confirmed, Failed, Pending};
    let listed = listed(&[
        Pending, Failed, Confirmed, Cancelled, Failed, Confirmed, Failed, Pending,
    ]);
    let mut acks = acks(&[
        Last::Booked,
        Last::Booked,
        Last::Done(Act::Confirm),
        Last::Done(Act::Cancel),
        Last::TooLate,
        Last::Unanswered(Act::Confirm),
        Last::Unanswered(Act::Confirm),
    ]);
    // The eighth request was not answered.
    acks.maybe_done.push(8);
    let faults = find_faults(&listed, &acks, &Expected::default());
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn what_disagrees_with_what_was_told_is_a_fault() {
    use BookingStatus::{Cancelled, Confirmed, Failed, Pending};
    let none = Expected::default();
    for (status, last) in [
        (Confirmed, Last::Booked),
        (Cancelled, Last::Booked),
        (Pending, Last::Done(Act::Confirm)),
        (Failed, Last::Done(Act::Confirm)),
        (Confirmed, Last::Done(Act::Cancel)),
        (Pending, Last::TooLate),
        (Confirmed, Last::Unanswered(Act::Cancel)),
    ] {
        let what = "bookings differ from what was acknowledged: 1";
        one_fault(&listed(&[status]), &acks(&[last]), &none, what);
    }

    let two = acks(&[Last::Booked; 2]);
    let what = "acknowledged bookings are missing: 1";
    one_fault(&listed(&[Pending]), &two, &none, what);

    let mut twice = acks(&[Last::Booked]);
    twice.acknowledged.push(twice.acknowledged[0]);
    let what = "bookings were acknowledged twice: 1";
    one_fault(&listed(&[Pending]), &twice, &none, what);

    let what = "bookings were made for requests that were refused: 1";
    one_fault(&listed(&[Pending]), &acks(&[]), &none, what);

    let mut booked_twice = listed(&[Pending; 2]);
    booked_twice.bookings[1].user_name = "user 1".into();
    let what = "requests were booked twice: 1";
    one_fault(&booked_twice, &acks(&[Last::Booked]), &none, what);
}

#[test]
fn seats_that_do_not_add_up_are_a_fault() {
    use BookingStatus::Pending;
    for available in [8, 10] {
        let mut listed = listed(&[Pending]);
        listed.sum.available = available;
        let what = "seats do not add up";
        one_fault(&listed, &acks(&[Last::Booked]), &Expected::default(), what);
    }
    let sold = Expected {
        sold: Some(2),
        ..Expected::default()
    };
    let what = "acknowledged bookings do not match the seats";
    one_fault(&listed(&[Pending]), &acks(&[Last::Booked]), &sold, what);
    let no_holds = Expected {
        no_holds: true,
        ..Expected::default()
    };
    let what = "bookings are still held: 1";
    one_fault(&listed(&[Pending]), &acks(&[Last::Booked]), &no_holds, what);
}
