//! Parameters that extractors parse by hand, for the OpenAPI document.

use serde_json::Value;
use utoipa::openapi::{
    Required,
    path::{Parameter, ParameterBuilder, ParameterIn},
    schema::ObjectBuilder,
};

/// Describes an optional header.
pub(super) fn header(
    name: &str,
    description: &str,
    schema: ObjectBuilder,
    example: &str,
) -> Vec<Parameter> {
    let builder = describe(name, description, schema, example.into());
    let builder = builder.parameter_in(ParameterIn::Header);
    vec![builder.required(Required::False).build()]
}

/// Describes a part of the path.
pub(super) fn path(
    name: &str,
    description: &str,
    schema: ObjectBuilder,
    example: i64,
) -> Vec<Parameter> {
    let builder = describe(name, description, schema, example.into());
    let builder = builder.parameter_in(ParameterIn::Path);
    vec![builder.required(Required::True).build()]
}

fn describe(
    name: &str,
    description: &str,
    schema: ObjectBuilder,
    example: Value,
) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .description(Some(description))
        .schema(Some(schema))
        .example(Some(example))
}
