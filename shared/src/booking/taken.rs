//! Seats that users have, for the limit of the seats of a user.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::user_name::comparable;
use crate::{id::ShowId, postgres};

/// Returns how many seats these users of shows have there, held or confirmed, by the form in which
/// names are compared.
///
/// If a show is given, it is the show of all users.
pub(super) async fn by_users<'u>(
    tx: &mut PgConnection,
    users: impl Iterator<Item = (ShowId, &'u str)>,
    show_id: Option<ShowId>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<(ShowId, String), i64>, postgres::Error> {
    // Bookings of an earlier version of this program count by the name as it is written.
    let written: BTreeSet<(ShowId, &str)> = users.collect();
    if written.is_empty() {
        return Ok(BTreeMap::new());
    }
    let forms: BTreeMap<(ShowId, String), String> = written
        .into_iter()
        .flat_map(|(show_id, name)| {
            let form = comparable(name);
            [
                ((show_id, name.to_owned()), form.clone()),
                ((show_id, form.clone()), form),
            ]
        })
        .collect();
    let (show_ids, names): (Vec<ShowId>, Vec<String>) = forms.keys().cloned().unzip();
    let rows = sqlx::query!(
        r#"SELECT show_id AS "show_id!: ShowId", name AS "name!", sum(number_of_seats) AS "seats!"
           FROM (SELECT bookings.show_id, name, number_of_seats, status, expires_at
                 FROM unnest($1::bigint[], $2::text[]) AS wanted (show_id, name)
                 JOIN bookings ON bookings.show_id = wanted.show_id AND counted_as = name
                 WHERE counts_per_user AND ($4::bigint IS NULL OR bookings.show_id = $4)
                 UNION ALL
                 SELECT bookings.show_id, name, number_of_seats, status, expires_at
                 FROM unnest($1::bigint[], $2::text[]) AS wanted (show_id, name)
                 JOIN bookings ON bookings.show_id = wanted.show_id AND user_name = name
                 WHERE counts_per_user AND counted_as IS NULL AND ($4::bigint IS NULL OR bookings.show_id = $4)) AS counted
           WHERE status = 'CONFIRMED' OR expires_at > $3
           GROUP BY show_id, name"#,
        &show_ids as &[ShowId],
        &names,
        now,
        show_id as Option<ShowId>,
    )
    .fetch_all(tx)
    .await?;
    let mut taken = BTreeMap::new();
    for row in rows {
        let form = forms
            .get(&(row.show_id, row.name.clone()))
            .map_or(row.name, String::clone);
        *taken.entry((row.show_id, form)).or_default() += row.seats;
    }
    Ok(taken)
}
