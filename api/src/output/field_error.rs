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
