//! Report of an import: how many rows were booked, and which were refused.

use std::fs::File;

use super::{client::Problem, rows::Row};
use crate::table;

/// Number of refused rows that are printed.
const PRINTED_ROWS: usize = 10;

/// Numbers of rows by outcome, and the refused rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Number of rows that this run booked.
    pub(super) booked: usize,
    /// Number of rows that an earlier run booked.
    pub(super) already_there: usize,
    /// Number of bookings of both kinds that this run confirmed.
    pub(super) confirmed: usize,
    pub(super) refused: Vec<Refused>,
    /// Number of rows that were not sent, or got no final answer.
    pub(super) unfinished: usize,
}

/// A row that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) row: Row,
    pub(super) problem: Problem,
}

impl Report {
    /// Adds the report of a part of the rows.
    pub(super) fn add(&mut self, part: Self) {
        self.booked += part.booked;
        self.already_there += part.already_there;
        self.confirmed += part.confirmed;
        self.refused.extend(part.refused);
    }

    /// Puts the refused rows into the order of the file.
    pub(super) fn sort(&mut self) {
        self.refused.sort_by_key(|refused| refused.row.line);
    }

    /// Returns the number of rows that need no further request.
    pub(super) fn settled(&self) -> usize {
        self.booked + self.already_there + self.refused.len()
    }

    /// Prints the numbers to standard output, and refused rows to standard error.
    pub(super) fn print(&self) {
        for Refused { row, problem } in self.refused.iter().take(PRINTED_ROWS) {
            eprintln!("line {}: {}: {}", row.line, problem.kind(), problem.detail);
        }
        if self.refused.len() > PRINTED_ROWS {
            let more = self.refused.len() - PRINTED_ROWS;
            eprintln!("and {more} more: --refused FILE writes all of them to a file");
        }
        let mut table = table::plain();
        for (name, count) in [
            ("booked", self.booked),
            ("already there", self.already_there),
            ("confirmed", self.confirmed),
            ("refused", self.refused.len()),
            ("not finished", self.unfinished),
        ] {
            table.add_row([name.to_owned(), count.to_string()]);
        }
        table::align_figures(&mut table);
        println!("{table}");
    }
}

/// Writes the refused rows to a CSV file.
pub(super) fn write(refused: &[Refused], file: File) -> csv::Result<()> {
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record([
        "line",
        "problem",
        "detail",
        "showId",
        "userName",
        "numberOfSeats",
    ])?;
    for Refused { row, problem } in refused {
        writer.write_record([
            &row.line.to_string(),
            problem.kind(),
            &problem.detail,
            &row.show_id.to_string(),
            &row.user_name,
            &row.number_of_seats.to_string(),
        ])?;
    }
    Ok(writer.flush()?)
}
