//! The OpenAPI document of the API, and a page to read and try it.

mod document;
mod page;
mod problems;

pub use self::document::document;
pub(crate) use self::page::routes as page;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use axum::Router;

    use super::*;
    use crate::{output::problem_examples::problem_examples, routes, state::AppState};

    /// Returns the paths of a router from its debug output: axum exposes them nowhere else.
    fn paths(router: &Router<Arc<AppState>>) -> BTreeSet<String> {
        format!("{router:?}")
            .split('"')
            .filter(|part| part.starts_with('/') && part.len() > 1 && !part.contains("__private"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_fact_of_a_problem_is_described() {
        let described = problems::schema()["properties"].take();
        for problem in problem_examples() {
            for member in problem.document().as_object().unwrap().keys() {
                assert!(
                    !described[member].is_null(),
                    "{member} of {}",
                    problem.kind()
                );
            }
        }
    }

    #[test]
    fn every_route_is_described_but_those_of_the_description() {
        let own: BTreeSet<String> = ["/docs", "/docs/", "/docs/{*rest}", "/openapi.json"]
            .map(str::to_owned)
            .into();
        assert_eq!(paths(&page::routes()), own);
        let described = document()["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let all = paths(&Router::from(routes::documented()).merge(page::routes()));
        assert_eq!(&all - &own, described);
    }
}
