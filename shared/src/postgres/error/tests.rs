use std::{borrow::Cow, error, fmt};

use sqlx::error::{DatabaseError, ErrorKind};

use super::*;

#[derive(Debug)]
struct Fake(&'static str, &'static str);

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

impl error::Error for Fake {}

impl DatabaseError for Fake {
    fn message(&self) -> &str {
        self.1
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.0.into())
    }
    fn as_error(&self) -> &(dyn error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

fn error(code: &'static str, message: &'static str) -> Error {
    sqlx::Error::Database(Box::new(Fake(code, message))).into()
}

#[test]
fn what_only_an_operator_can_mend_says_so_and_is_not_run_again() {
    for code in [
        "28000", "28P01", "3D000", "42501", "53000", "53100", "53200", "53400", "55000", "55006",
        "58000", "58030", "0P000", "F0000",
    ] {
        let error = error(code, "");
        assert!(
            matches!(error, Error::NeedsOperator(_)),
            "{code}: {error:?}"
        );
        assert!(!error.is_transient(), "{code}");
        let reason = error.operators_reason().unwrap();
        assert!(reason.contains(code), "{reason}");
    }
}

#[test]
fn what_passes_by_itself_is_run_again() {
    for code in ["40001", "40P01", "23505", "72000"] {
        assert!(matches!(error(code, ""), Error::Conflict(_)), "{code}");
    }
    for code in [
        "08006", "57P01", "57P03", "57P04", "57P05", "53300", "25006", "25P04",
    ] {
        let error = error(code, "");
        assert!(matches!(error, Error::Unavailable(_)), "{code}: {error:?}");
        assert!(error.is_transient(), "{code}");
    }
    assert!(error("57014", "canceling statement due to user request").is_transient());
    assert!(!error("57014", "canceling statement due to statement timeout").is_transient());
    assert!(error("26000", "").is_transient());
}

#[test]
fn another_schema_is_not_a_defect_and_what_is_one_says_so() {
    for code in ["42P01", "42703", "42883", "3F000"] {
        assert!(matches!(error(code, ""), Error::NotReady(_)), "{code}");
    }
    for code in [
        "22012", "23514", "0A000", "42601", "42704", "54000", "P0001", "XX000", "XX001",
    ] {
        assert!(matches!(error(code, ""), Error::Unexpected(_)), "{code}");
    }
}
