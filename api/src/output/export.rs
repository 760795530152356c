//! Exports of bookings: CSV, and JSON in lines.

use std::borrow::Cow;

use axum::{body::Bytes, http::HeaderValue};
use chrono::{DateTime, SecondsFormat, Utc};
use shared::booking::Booking;

use super::booking::BookingView;

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Comma-separated values (RFC 4180).
    Csv,
    /// A line of JSON for each booking.
    Ndjson,
}

const NDJSON: &str = "application/x-ndjson";

impl Format {
    /// Returns the format that the header `Accept` names; CSV if it names none.
    pub(crate) fn accepted(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|value| value.to_str().ok());
        let names_ndjson =
            accept.is_some_and(|accept| accept.to_ascii_lowercase().contains(NDJSON));
        if names_ndjson {
            Self::Ndjson
        } else {
            Self::Csv
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => NDJSON,
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Columns of the CSV, named as the members of a booking.
const COLUMNS: [&str; 12] = [
    "id",
    "showId",
    "userName",
    "numberOfSeats",
    "status",
    "createdAt",
    "expiresAt",
    "resolvedAt",
    "releasedSeats",
    "from",
    "reference",
    "metadata",
];

/// Part of an export.
pub(crate) struct Part {
    format: Format,
    csv: csv::Writer<Vec<u8>>,
    lines: Vec<u8>,
}

impl Part {
    pub(crate) fn new(format: Format) -> Self {
        let csv = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        Self {
            format,
            csv,
            lines: Vec::new(),
        }
    }

    /// Writes what an export begins with.
    pub(crate) fn begin(&mut self) {
        if self.format == Format::Csv {
            self.write_record(&COLUMNS.map(Cow::Borrowed));
        }
    }

    pub(crate) fn add(&mut self, booking: Booking) {
        match self.format {
            Format::Csv => self.write_record(&cells(booking)),
            Format::Ndjson => {
                serde_json::to_writer(&mut self.lines, &BookingView::from(booking))
                    .expect("views have only keys that are texts");
                self.lines.push(b'\n');
            }
        }
    }

    fn write_record(&mut self, cells: &[Cow<'static, str>; 12]) {
        let cells = cells.iter().map(|cell| cell.as_bytes());
        self.csv
            .write_record(cells)
            .expect("each record has as many cells, and memory can be written");
    }
}

impl From<Part> for Bytes {
    fn from(part: Part) -> Self {
        let csv = part.csv.into_inner().expect("memory can be written");
        [csv, part.lines].concat().into()
    }
}

fn cells(booking: Booking) -> [Cow<'static, str>; 12] {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let optional = |value: Option<String>| Cow::Owned(value.unwrap_or_default());
    [
        Cow::Owned(booking.id.to_string()),
        Cow::Owned(booking.show_id.to_string()),
        Cow::Owned(defused(booking.user_name)),
        Cow::Owned(booking.number_of_seats.to_string()),
        Cow::Borrowed(booking.status.as_str()),
        Cow::Owned(time(booking.created_at)),
        Cow::Owned(time(booking.expires_at)),
        optional(booking.resolved_at.map(time)),
        optional(booking.released_seats.map(|seats| seats.to_string())),
        optional(booking.from.map(|from| from.to_string())),
        optional(booking.reference.map(defused)),
        optional(booking.metadata.map(|metadata| metadata.to_string())),
    ]
}

/// Returns a text that no spreadsheet runs as a formula.
///
/// A cell is run if it begins with one of these characters, perhaps after spaces, or with its
/// full-width form.
fn defused(text: String) -> String {
    let first = text.trim_start().chars().next();
    let is_run = matches!(
        first,
        Some('=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠')
    );
    if is_run { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_defused() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t@1", "＝1"] {
            assert_eq!(defused(text.to_owned()), format!("'{text}"));
        }
        for text in ["Alice", "O'Hara", "a=b", "1-2", "", "(=1)"] {
            assert_eq!(defused(text.to_owned()), text);
        }
    }

    #[test]
    fn a_format_is_chosen_by_what_the_client_accepts() {
        for (accept, format) in [
            (None, Format::Csv),
            (Some("*/*"), Format::Csv),
            (Some("text/csv"), Format::Csv),
            (Some("application/X-NDJSON, */*;q=0.1"), Format::Ndjson),
        ] {
            let accept = accept.map(HeaderValue::from_static);
            assert_eq!(Format::accepted(accept.as_ref()), format);
        }
    }
}
