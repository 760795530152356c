use std::future::poll_fn;

use hyper::body::Body as _;
use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_list_that_is_read_too_slowly_does_not_end() {
    let pieces = || PacedBody {
        rest: vec![b' '; 3 * PIECE_BYTES].into(),
        began: Instant::now(),
        _permit: (),
    };
    let mut slow = pieces();
    let mut is_sent = async || match poll_fn(|cx| Pin::new(&mut slow).poll_frame(cx)).await {
        Some(piece) => piece.is_ok(),
        None => panic!("the body ended as if it were complete"),
    };
    assert!(is_sent().await);
    advance(READ_TIMEOUT).await;
    assert!(is_sent().await, "just in time");
    advance(Duration::from_millis(1)).await;
    assert!(!is_sent().await);

    let read = axum::body::to_bytes(Body::new(pieces()), usize::MAX).await;
    assert_eq!(read.unwrap().len(), 3 * PIECE_BYTES);
}

#[test]
fn a_list_costs_by_its_length() {
    let price = |path: &'static str| request_cost(&Method::GET, &Uri::from_static(path)).get();
    for (path, expected) in [
        ("/bookings", 11),
        ("/bookings?limit=1000", 101),
        ("/bookings?status=FAILED&limit=9&limit=1000", 1),
        ("/shows?%6Cimit=50", 6),
        ("/shows?limit=99999999999999999999", 101),
        ("/shows?limit=-5", 1),
        ("/bookings/1?limit=1000", 1),
    ] {
        assert_eq!(price(path), expected, "{path}");
    }
}

#[test]
fn what_is_no_list_counts_once() {
    let uri = Uri::from_static("/bookings?limit=1000");
    assert_eq!(request_cost(&Method::POST, &uri), NonZeroU32::MIN);
}
