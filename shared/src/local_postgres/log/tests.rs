use super::*;

#[test]
fn the_reason_of_a_servers_end_is_what_its_log_says_last_to_those_who_run_it() {
    let log = r#"
2026-11-25 08:00:00.000 UTC [1] FATAL:  an older reason
2026-11-26 15:09:06.788 UTC [18707] LOG:  starting PostgreSQL 15.18 on x86_64-pc-linux-gnu
2026-11-26 15:09:06.810 UTC [18707] LOG:  database system is ready to accept connections
2026-11-26 15:09:14.067 UTC [18778] PANIC:  could not write to file "pg_wal/xlogtemp.18778": No space left on device
2026-11-26 15:09:14.067 UTC [18778] STATEMENT:  COMMIT AND CHAIN
2026-11-26 15:09:14.075 UTC [18707] LOG:  server process (PID 18778) was terminated by signal 6: Aborted
2026-11-26 15:09:14.172 UTC [19255] FATAL:  the database system is in recovery mode
2026-11-26 15:09:14.290 UTC [19252] FATAL:  could not write to file "pg_wal/xlogtemp.19252": No space left on device
2026-11-26 15:09:14.298 UTC [18707] LOG:  shutting down due to startup process failure
2026-11-26 15:09:14.308 UTC [18707] LOG:  database system is shut down
"#;
    assert_eq!(
        last_words(log),
        r#"PANIC:  could not write to file "pg_wal/xlogtemp.18778": No space left on device
FATAL:  could not write to file "pg_wal/xlogtemp.19252": No space left on device"#
    );
}

#[test]
fn a_log_without_a_reason_is_quoted_as_it_ends() {
    assert_eq!(last_words("one\ntwo\nthree\nfour\n"), "two\nthree\nfour");
    assert_eq!(last_words(""), "");
}
