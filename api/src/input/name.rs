//! Names that people see.

use std::borrow::Cow;

use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::metadata::MAX_REFERENCE_CHARS;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// Name of 1 to 200 characters.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(transparent)]
#[garde(transparent)]
#[schema(
    value_type = String,
    examples("Alice in Wonderland"),
    min_length = 1,
    max_length = 200,
    pattern = "^([^\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|[^\\x00-\\x7f\\x80-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb][\\u200c\\u200d])*$"
)]
pub(crate) struct Name(
    #[garde(length(chars, min = 1, max = 200), custom(plain_to_see))] pub(crate) String,
);

/// Reference by which a client's system knows something: 1 to 64 characters, as of a [`Name`].
#[derive(Debug, Clone, Serialize, Deserialize, Validate)]
#[serde(transparent)]
#[garde(transparent)]
pub(crate) struct Reference(
    #[garde(length(chars, min = 1, max = MAX_REFERENCE_CHARS), custom(plain_to_see))]
    pub(crate)  String,
);

impl ToSchema for Reference {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Reference")
    }
}

impl PartialSchema for Reference {
    fn schema() -> RefOr<Schema> {
        let mut schema = Name::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.max_length = Some(MAX_REFERENCE_CHARS);
            object.examples = vec!["order-2026-4711".into()];
        }
        schema
    }
}

/// Validates that a name is displayed as it is written, wherever it appears.
///
/// It may contain no control character (such as NUL, which the database cannot store), no invisible
/// character, and none that changes the direction of others. The joiners U+200C and U+200D, which
/// some scripts and emoji need, may follow only a character that is neither ASCII nor a joiner.
///
/// The pattern in the OpenAPI document is equivalent.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn plain_to_see(text: &str, &(): &()) -> garde::Result {
    let mut before = ' ';
    for character in text.chars() {
        let is_plain = match character {
            '\u{200c}' | '\u{200d}' => !matches!(before, '\0'..='\x7f' | '\u{200c}' | '\u{200d}'),
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' => false,
            _ => !character.is_control(),
        };
        if !is_plain {
            return Err(garde::Error::new(NOT_PLAIN));
        }
        before = character;
    }
    Ok(())
}

/// Error of a name that is not [`plain_to_see`].
pub(crate) const NOT_PLAIN: &str =
    "contains a character that is invisible or changes how others are displayed";
