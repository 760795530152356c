//! `ticketing import` against the real programs.

mod system;

use std::fs;

use shared::{
    api_key::{self, NewApiKey, Scope},
    show::Show,
};
use testing::{a_show, a_show_with_hold, assert_seats_conserved, eventually, let_pass, lock_show};

use crate::system::{
    import::{Importing, run},
    ticketing,
};

/// Returns this many rows of a show, of one seat each.
fn rows(show: &Show, count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{},User {n},1", show.id))
        .collect()
}

const BOOKINGS: &str = "SELECT count(*) FROM bookings";
const CONFIRMED: &str = "SELECT count(*) FROM bookings WHERE status = 'CONFIRMED'";

#[tokio::test]
async fn a_file_is_booked_and_confirmed_and_imported_again_it_books_nothing() {
    let system = Importing::new("imported", &[]).await;
    let (one, two) = (
        a_show(&system.db.pool, 1000).await,
        a_show(&system.db.pool, 1000).await,
    );
    let file = system.file(&[rows(&one, 250), rows(&two, 150)].concat());
    let first = system.import(&file, &[]).await;
    first.assert(0, [400, 0, 400, 0]);
    assert_eq!(first.stderr, "", "no progress bar without a terminal");
    assert_eq!(system.count(CONFIRMED).await, 400);

    // Whatever the size of the batches.
    for args in [&[][..], &["--batch", "500"], &["--batch", "7"]] {
        system.import(&file, args).await.assert(0, [0, 400, 0, 0]);
    }
    assert_eq!(system.count(BOOKINGS).await, 400);
    assert_seats_conserved(&system.db.pool).await;
}

#[tokio::test]
async fn an_interrupted_import_continues_where_it_ended() {
    let system = Importing::new("interrupted", &[]).await;
    let free = a_show(&system.db.pool, 1000).await;
    let locked = a_show(&system.db.pool, 1000).await;
    let file = system.file(&[rows(&free, 55), rows(&locked, 45)].concat());
    // Keeps the import from getting further than the second show.
    let blocker = lock_show(&system.db.pool, locked.id).await;
    let mut command = system.command(&file, &["--batch", "10", "--connections", "1"]);
    let mut import = command.spawn().unwrap();
    eventually("the rows of the first show are confirmed", async || {
        system.count(CONFIRMED).await == 55
    })
    .await;
    import.kill().await.unwrap();
    blocker.rollback().await.unwrap();
    // A batch of the killed import may still be under way; its rows are booked once.
    let again = system.import(&file, &["--batch", "10"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(again.number("booked") + again.number("already there"), 100);
    assert!(again.number("already there") >= 55);
    assert_eq!(system.count(CONFIRMED).await, 100);
    assert_eq!(system.count(BOOKINGS).await, 100);
}

/// A hold that expired used up the key of its row, so the row is booked with another one.
#[tokio::test]
async fn rows_whose_holds_expired_before_they_were_confirmed_are_booked_again() {
    let system = Importing::new("expired", &[]).await;
    let show = a_show(&system.db.pool, 1000).await;
    let file = system.file(&rows(&show, 20));
    let hold = system.import(&file, &["--hold-only"]).await;
    hold.assert(0, [20, 0, 0, 0]);
    assert_eq!(system.count(CONFIRMED).await, 0);
    let hold = system.import(&file, &["--hold-only"]).await;
    hold.assert(0, [0, 20, 0, 0]);
    let_pass(&system.db.pool, 200).await;
    system.import(&file, &[]).await.assert(0, [20, 0, 20, 0]);
    system.import(&file, &[]).await.assert(0, [0, 20, 0, 0]);
    assert_eq!(system.count(CONFIRMED).await, 20);
    assert_eq!(system.count(BOOKINGS).await, 40);

    // The caller's own keys are used as they are.
    let file = system.path("keys.csv");
    let text = format!(
        "idempotencyKey,showId,userName,numberOfSeats\nk,{},Eve,1\n",
        show.id
    );
    fs::write(&file, text).unwrap();
    let hold = system.import(&file, &["--hold-only"]).await;
    hold.assert(0, [1, 0, 0, 0]);
    let_pass(&system.db.pool, 200).await;
    let late = system.import(&file, &[]).await;
    late.assert(1, [0, 0, 0, 1]);
    assert!(
        late.stderr.contains("line 2: hold-expired"),
        "{}",
        late.stderr
    );
}

#[tokio::test]
async fn refused_rows_are_reported_with_their_line_and_the_others_booked() {
    let system = Importing::new("refused", &[]).await;
    let show = a_show(&system.db.pool, 10).await;
    let id = show.id;
    let mut lines = rows(&show, 8);
    lines.insert(2, "999,\"Doe, Jane\",2".to_owned());
    lines.insert(5, format!("{id},invisible\u{200b},1"));
    lines.push(format!("{id},Eve,3"));
    let file = system.file(&lines);
    let refused = system.path("refused.csv");
    let args = [
        "--batch",
        "4",
        "--connections",
        "1",
        "--refused",
        refused.to_str().unwrap(),
    ];
    let imported = system.import(&file, &args).await;
    imported.assert(1, [8, 0, 8, 3]);
    assert!(
        imported
            .stderr
            .contains("line 4: show-not-found: There is no show 999.")
    );
    assert!(imported.stderr.contains("Error: 3 of 11 rows were refused"));
    let written = fs::read_to_string(&refused).unwrap();
    let expected = format!(
        "line,problem,detail,showId,userName,numberOfSeats\n\
         4,show-not-found,There is no show 999.,999,\"Doe, Jane\",2\n\
         7,invalid,userName contains a character that is invisible or changes how others are displayed,\
         {id},invisible\u{200b},1\n\
         12,not-enough-seats,\"Show {id} has 2 seats available, 3 were requested.\",{id},Eve,3\n"
    );
    assert_eq!(written, expected);
    system.import(&file, &args).await.assert(1, [0, 8, 0, 3]);
    assert_eq!(system.count(BOOKINGS).await, 8);
}

#[tokio::test]
async fn an_invalid_file_is_reported_before_anything_is_sent() {
    let system = Importing::new("invalid", &[]).await;
    let show = a_show(&system.db.pool, 10).await;
    let mut lines = rows(&show, 30);
    lines[3] = format!("{},Eve,0", show.id);
    lines[7] = format!("{},Eve", show.id);
    let imported = system.import(&system.file(&lines), &[]).await;
    assert_eq!(imported.code, Some(1));
    for expected in [
        "nothing was sent",
        "line 5: numberOfSeats must be an integer from 1 to 1000, not \"0\"",
        "line 9: 2 values instead of 3",
    ] {
        assert!(imported.stderr.contains(expected), "{}", imported.stderr);
    }
    let all_wrong = system.file(&vec!["x,y,z".to_owned(); 30]);
    let imported = system.import(&all_wrong, &[]).await;
    assert!(
        imported.stderr.contains("and 40 more"),
        "{}",
        imported.stderr
    );
    let missing = system.import(&system.path("none.csv"), &[]).await;
    assert!(missing.stderr.contains("cannot read"), "{}", missing.stderr);
    assert_eq!(missing.code, Some(1));
    assert_eq!(system.count(BOOKINGS).await, 0);
}

#[tokio::test]
async fn an_import_waits_for_a_busy_server_and_gives_up_in_the_end() {
    let system = Importing::new("busy", &["--requests-per-second", "100"]).await;
    let show = a_show_with_hold(&system.db.pool, 1000, 600).await;
    let file = system.file(&rows(&show, 100));
    let args = ["--batch", "20"];
    system
        .import(&file, &args)
        .await
        .assert(0, [100, 0, 100, 0]);

    let other = a_show(&system.db.pool, 100).await;
    let _blocker = lock_show(&system.db.pool, other.id).await;
    let file = system.file(&[rows(&show, 10), rows(&other, 10)].concat());
    let args = ["--give-up-seconds", "3"];
    let imported = system.import(&file, &args).await;
    imported.assert(1, [10, 0, 10, 0]);
    assert_eq!(imported.number("not finished"), 10);
    assert!(imported.stderr.contains("run the same command to continue"));
    assert!(
        imported.stderr.contains("gave up after"),
        "{}",
        imported.stderr
    );
}

#[tokio::test]
async fn an_import_reports_a_missing_key_and_a_missing_server() {
    let system = Importing::new("keyless", &["--require-keys"]).await;
    let show = a_show(&system.db.pool, 10).await;
    let file = system.file(&rows(&show, 3));
    let without = system.import(&file, &[]).await;
    assert_eq!(without.code, Some(1));
    assert!(without.stderr.contains("API key"), "{}", without.stderr);
    let new = NewApiKey {
        name: "import",
        scopes: &[Scope::BookingsWrite],
        requests_per_second: None,
    };
    let key = api_key::create(&system.db.pool, &new).await.unwrap();
    let key = key.reveal();
    eventually("the key is known", async || {
        let mut command = system.command(&file, &[]);
        command.env("TICKETING_API_KEY", &key);
        run(command).await.code == Some(0)
    })
    .await;
    assert_eq!(system.count(CONFIRMED).await, 3);

    let mut command = ticketing();
    let nobody = command
        .arg("import")
        .arg(&file)
        .args(["--url", "http://127.0.0.1:1"]);
    let output = nobody.output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("no answer from http://127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn the_help_of_import_explains_the_file_and_hides_the_key() {
    let mut command = ticketing();
    command.args(["import", "--help"]);
    command.env("TICKETING_API_KEY", "tkt_1_secret");
    let help = run(command).await.stdout;
    for expected in [
        "showId",
        "idempotencyKey",
        "books nothing twice",
        "TICKETING_API_KEY",
        "--hold-only",
    ] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
    assert!(!help.contains("tkt_1_secret"));
}
