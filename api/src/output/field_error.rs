//! Validation error of one value.

use serde::Serialize;

/// Validation error of one value.
#[derive(Debug, Serialize)]
pub(crate) struct FieldError {
    /// Location in the body (JSON pointer) or in the query (parameter name).
    pub(crate) pointer: String,
    /// Description of the error.
    pub(crate) detail: String,
}

/// Maximum length of a pointer or of a description, in characters.
const MAX_CHARACTERS: usize = 200;

impl FieldError {
    /// Shortens the texts, which may contain the name of a member that fills the body.
    pub(crate) fn shortened(mut self) -> Self {
        for text in [&mut self.pointer, &mut self.detail] {
            if let Some((end, _)) = text.char_indices().nth(MAX_CHARACTERS) {
                text.truncate(end);
                text.push('…');
            }
        }
        self
    }
}
