//! Rows of a file with bookings, checked before anything is sent.

use std::{collections::HashMap, fmt::Write, fs, path::Path};

use anyhow::{Context, bail};
use csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use sha2::{Digest, Sha256};
use shared::{booking::MAX_SEATS_PER_BOOKING, idempotency::MAX_KEY_BYTES};

/// A row of the file.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Number of its first line.
    pub(super) line: u64,
    pub(super) show_id: i64,
    pub(super) user_name: String,
    pub(super) number_of_seats: i32,
    /// Idempotency key.
    pub(super) key: String,
    /// True if the key is in the file.
    pub(super) has_own_key: bool,
}

/// Columns that a file must have, and the one that it may have.
const COLUMNS: [&str; 4] = ["showId", "userName", "numberOfSeats", "idempotencyKey"];

/// Number of columns that a file must have, the first ones of [`COLUMNS`].
const REQUIRED: usize = 3;

/// Maximum length of a user name, in characters.
const MAX_NAME_CHARACTERS: usize = 200;

/// Start of files that some programs write.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Number of errors that are printed.
const PRINTED_ERRORS: usize = 20;

/// Maximum length of a value in an error, in characters.
const EXCERPT: usize = 40;

/// Reads the rows of a file.
///
/// # Errors
///
/// Fails with all invalid lines.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let name = path.display();
    let content = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let errors = match parse(&content) {
        Ok(rows) => return Ok(rows),
        Err(errors) => errors,
    };
    let mut text = errors[..errors.len().min(PRINTED_ERRORS)].join("\n  ");
    if errors.len() > PRINTED_ERRORS {
        let more = errors.len() - PRINTED_ERRORS;
        // Writing to a string can't fail.
        let _ = write!(text, "\n  and {more} more");
    }
    bail!("{name} is invalid, and nothing was sent:\n  {text}");
}

/// Parses the content of a file. Returns the errors of all lines if there are any.
fn parse(content: &[u8]) -> Result<Vec<Row>, Vec<String>> {
    let content_hash = hex::encode(&Sha256::digest(content)[..16]);
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
    let mut reader = ReaderBuilder::new().from_reader(content);
    let columns = match reader.headers() {
        Ok(header) => columns(header).map_err(|error| vec![error])?,
        Err(error) => return Err(vec![describe(&error, 1)]),
    };
    let mut lines = Lines::of(content);
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = lines.at(record.position());
                match row(line, &record, &columns, &content_hash) {
                    Ok(row) => rows.push(row),
                    Err(of_row) => errors.extend(of_row),
                }
            }
            Err(error) => errors.push(describe(&error, lines.at(error.position()))),
        }
    }
    errors.extend(repeated_keys(&rows));
    if errors.is_empty() {
        Ok(rows)
    } else {
        Err(errors)
    }
}

/// Counts the lines of a file.
///
/// The reader's own count is of no use for keys: it puts the start of a record before the line end
/// of the previous one, so that two records can have the same line.
struct Lines<'c> {
    content: &'c [u8],
    /// Position up to which lines are counted.
    counted: usize,
    line: u64,
}

impl<'c> Lines<'c> {
    fn of(content: &'c [u8]) -> Self {
        Self {
            content,
            counted: 0,
            line: 1,
        }
    }

    /// Returns the line of the record at this position, which is not before the previous one.
    fn at(&mut self, position: Option<&Position>) -> u64 {
        let start = position.and_then(|position| usize::try_from(position.byte()).ok());
        let mut end = start.unwrap_or_default().min(self.content.len());
        let is_line_end = |byte: &&u8| b"\r\n".contains(byte);
        end += self.content[end..].iter().take_while(is_line_end).count();
        while self.counted < end {
            let rest = &self.content[self.counted..];
            // A line ends with \n, \r or both.
            let ends = rest[0] == b'\n' || (rest[0] == b'\r' && rest.get(1) != Some(&b'\n'));
            self.line += u64::from(ends);
            self.counted += 1;
        }
        self.line
    }
}

/// Returns the positions of [`COLUMNS`].
fn columns(header: &StringRecord) -> Result<[Option<usize>; COLUMNS.len()], String> {
    let names: Vec<&str> = header.iter().map(str::trim).collect();
    let columns = COLUMNS.map(|column| names.iter().position(|name| *name == column));
    let found = columns.iter().flatten().count();
    if columns[..REQUIRED].contains(&None) || found != names.len() {
        return Err(format!(
            "line 1: the columns must be showId,userName,numberOfSeats and optionally idempotencyKey, not {}",
            excerpt(&names.join(","))
        ));
    }
    Ok(columns)
}

/// Converts a record to a row, or to a description of each invalid value.
fn row(
    line: u64,
    record: &StringRecord,
    columns: &[Option<usize>; COLUMNS.len()],
    content_hash: &str,
) -> Result<Row, Vec<String>> {
    let [show_id, user_name, number_of_seats, key] =
        columns.map(|column| column.and_then(|at| record.get(at)).unwrap_or_default());
    let mut errors = Vec::new();
    let mut check = |is_valid: bool, what: &str, value: &str| {
        if !is_valid {
            errors.push(format!("line {line}: {what}, not {}", excerpt(value)));
        }
    };
    let parsed_id = show_id.trim().parse().ok();
    check(parsed_id.is_some(), "showId must be an integer", show_id);
    let characters = user_name.chars().count();
    check(
        (1..=MAX_NAME_CHARACTERS).contains(&characters),
        "userName must have 1 to 200 characters",
        user_name,
    );
    let seats = number_of_seats.trim().parse().ok();
    let seats = seats.filter(|seats| (1..=MAX_SEATS_PER_BOOKING).contains(seats));
    check(
        seats.is_some(),
        "numberOfSeats must be an integer from 1 to 1000",
        number_of_seats,
    );
    check(
        key.len() <= MAX_KEY_BYTES && key.bytes().all(|byte| byte.is_ascii_graphic()),
        "idempotencyKey must have 1 to 255 visible ASCII characters",
        key,
    );
    match (parsed_id, seats) {
        (Some(show_id), Some(number_of_seats)) if errors.is_empty() => Ok(Row {
            line,
            show_id,
            user_name: user_name.to_owned(),
            number_of_seats,
            has_own_key: !key.is_empty(),
            key: if key.is_empty() {
                format!("import-{content_hash}-{line}")
            } else {
                key.to_owned()
            },
        }),
        _ => Err(errors),
    }
}

/// Describes each row whose key an earlier row has: it would not be booked.
fn repeated_keys(rows: &[Row]) -> Vec<String> {
    let mut lines = HashMap::new();
    rows.iter()
        .filter_map(|row| {
            let earlier = lines.insert(row.key.as_str(), row.line)?;
            Some(format!(
                "line {}: idempotencyKey is that of line {earlier}",
                row.line
            ))
        })
        .collect()
}

/// Describes an error of the CSV format.
fn describe(error: &csv::Error, line: u64) -> String {
    match error.kind() {
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("line {line}: {len} values instead of {expected_len}"),
        ErrorKind::Utf8 { .. } => format!("line {line}: not valid UTF-8"),
        _ => format!("line {line}: {error}"),
    }
}

/// Quotes the start of a value.
fn excerpt(value: &str) -> String {
    match value.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests;
