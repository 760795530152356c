//! Responses: resources, pages of lists, and problems.

pub(crate) mod pagination;
pub(crate) mod problem;
pub(crate) mod replay;
pub(crate) mod tagged;
