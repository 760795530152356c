use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

const STATUSES: [BookingStatus; 4] = [
    BookingStatus::Pending,
    BookingStatus::Confirmed,
    BookingStatus::Failed,
    BookingStatus::Cancelled,
];

fn booking(id: i64, status: BookingStatus, is_extended: bool) -> Booking {
    let at = DateTime::UNIX_EPOCH;
    Booking {
        id: BookingId(id),
        show_id: ShowId(1),
        batch_id: BookingId(9),
        user_name: "Alice".to_owned(),
        number_of_seats: 3,
        released_seats: None,
        from: None,
        reference: None,
        metadata: None,
        status,
        expires_at: at + TimeDelta::minutes(2),
        is_extended,
        extendable_until: at + TimeDelta::minutes(15),
        created_at: at,
        resolved_at: (status != BookingStatus::Pending).then_some(at),
        read_at: at,
    }
}

fn in_batch(id: i64, is_extension: bool) -> Batch {
    Batch {
        show_id: ShowId(1),
        id: BookingId(id),
        is_extension,
    }
}

#[test]
fn a_hold_is_counted_with_its_seats_and_an_extended_one_by_itself() {
    let held = booking(5, BookingStatus::Pending, false);
    let extended = booking(5, BookingStatus::Pending, true);
    let confirmed = booking(5, BookingStatus::Confirmed, true);
    let changes = |before: &Booking, after: &Booking| {
        let changed = Changed {
            before: before.clone(),
            after: after.clone(),
        };
        Counts::of(&[changed]).0
    };
    let (one_less, one_more) = ([-1, -3], [1, 3]);
    let of_holds = |[held, held_seats]: [i32; 2]| Count {
        held,
        held_seats,
        ..Count::default()
    };
    assert_eq!(
        changes(&held, &extended),
        BTreeMap::from([
            (in_batch(9, false), of_holds(one_less)),
            (in_batch(5, true), of_holds(one_more))
        ])
    );
    let sold = Count {
        confirmed: 1,
        ..Count::default()
    };
    assert_eq!(
        changes(&extended, &confirmed),
        BTreeMap::from([
            (in_batch(9, false), sold),
            (in_batch(5, true), of_holds(one_less))
        ])
    );
    assert_eq!(changes(&extended, &extended), BTreeMap::new());
}

proptest! {
    #[test]
    fn what_one_status_loses_another_one_gains(
        changes in prop::collection::vec(
            (prop::sample::select(&STATUSES), any::<bool>(), prop::sample::select(&STATUSES), any::<bool>()), 0..20)
    ) {
        let changed: Vec<Changed> = (0..).zip(changes).map(|(id, (before, was_extended, after, is_extended))| Changed {
            before: booking(id, before, was_extended),
            after: booking(id, after, is_extended),
        }).collect();
        let total: i32 = Counts::of(&changed).0.values()
            .map(|count| count.held + count.confirmed + count.failed + count.cancelled).sum();
        prop_assert_eq!(total, 0);
    }
}
