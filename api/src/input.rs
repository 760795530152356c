//! Parts of a request, decoded and validated. What is invalid is rejected with a problem.

pub(crate) mod array;
pub(crate) mod caller;
pub(crate) mod conditions;
pub(crate) mod idempotency_key;
pub(crate) mod integer;
pub(crate) mod json;
pub(crate) mod metadata;
pub(crate) mod name;
pub(crate) mod optional;
mod parameter;
pub(crate) mod path;
pub(crate) mod schema;
pub(crate) mod time;
pub(crate) mod url;
pub(crate) mod validation;
