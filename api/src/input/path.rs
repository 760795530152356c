//! Path parameters of the routes, for the OpenAPI document.

use utoipa::{
    IntoParams,
    openapi::{
        KnownFormat, Object, SchemaFormat, Type,
        path::{Parameter, ParameterIn},
    },
};

use super::parameter;

/// Id of a booking in the path.
pub(crate) struct BookingPath;

/// Id of a show in the path.
pub(crate) struct ShowPath;

impl IntoParams for BookingPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        id("Id of the booking.")
    }
}

impl IntoParams for ShowPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        id("Id of the show.")
    }
}

fn id(description: &str) -> Vec<Parameter> {
    let schema = Object::builder()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1))
        .maximum(Some(i64::MAX));
    parameter::path("id", description, schema, 1042)
}
