//! What each route demands of its caller: one table of all routes. A route that is missing here is
//! open to nobody where keys are asked for, and a test says that it is missing.

use crate::auth::Action::{self, Admin, Consume, Describe, Produce, Tasks, Views};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Machines that hold no key ask this.
    Nothing,
    /// Any key; the door itself looks at what is asked.
    Key,
    /// The door checks a signature over the body (`Auth::signed`).
    Signature,
    May(Action, On),
}

/// To what an action must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The name in the path that the template calls `{name}`.
    Name,
    Fixed(&'static str),
    /// Anything at all; the door leaves out, or refuses, what the caller may not.
    Some,
    /// All there is.
    Every,
}

use self::{
    Demand::{Key, May, Nothing, Signature},
    On::{Every, Fixed, Name},
};

const SOME_CONSUME: Demand = May(Consume, On::Some);

/// Methods, template, demand. GET stands for HEAD too; `*` for every method.
const ROUTES: [(&str, &str, Demand); 71] = [
    ("GET", "/healthz", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/", Key),
    ("*", "/kinesis", Signature),
    ("GET", "/metrics", May(Describe, Every)),
    ("GET", "/dashboard", Key),
    ("GET", "/docs", Key),
    ("GET", "/openapi.json", Key),
    ("GET", "/assets/{}", Key),
    ("GET", "/api/views", May(Views, On::Some)),
    ("GET", "/api/views/{name}", May(Views, Name)),
    ("GET", "/api/tasks", May(Tasks, On::Some)),
    ("POST", "/api/tasks/{name}/run", May(Tasks, Name)),
    ("GET", "/api/log", May(Describe, On::Some)),
    ("POST", "/pin/", May(Produce, Fixed("Pinterest_data"))),
    ("*", "/pin", Key),
    ("GET", "/brokers", Key),
    ("GET", "/topics", May(Describe, On::Some)),
    ("GET", "/topics/{name}", May(Describe, Name)),
    ("POST", "/topics/{name}", May(Produce, Name)),
    ("GET", "/topics/{name}/partitions", May(Describe, Name)),
    ("GET", "/topics/{name}/partitions/{}", May(Describe, Name)),
    ("POST", "/topics/{name}/partitions/{}", May(Produce, Name)),
    ("GET", "/topics/{name}/partitions/{}/offsets", May(Describe, Name)),
    // Which topics a consumer reads, stands in bodies: the door looks at each.
    ("POST", "/consumers/{}", SOME_CONSUME),
    ("DELETE", "/consumers/{}/instances/{}", SOME_CONSUME),
    ("DELETE", "/consumers/{}/instances/{}/", SOME_CONSUME),
    ("GET POST DELETE", "/consumers/{}/instances/{}/subscription", SOME_CONSUME),
    ("GET POST", "/consumers/{}/instances/{}/assignments", SOME_CONSUME),
    ("POST", "/consumers/{}/instances/{}/positions", SOME_CONSUME),
    ("POST", "/consumers/{}/instances/{}/positions/beginning", SOME_CONSUME),
    ("POST", "/consumers/{}/instances/{}/positions/end", SOME_CONSUME),
    ("GET", "/consumers/{}/instances/{}/records", SOME_CONSUME),
    ("GET POST", "/consumers/{}/instances/{}/offsets", SOME_CONSUME),
    ("GET", "/v3/clusters", Key),
    ("GET", "/v3/clusters/{}", Key),
    ("GET", "/v3/clusters/{}/acls", Key),
    ("GET", "/v3/clusters/{}/broker-configs", Key),
    ("GET", "/v3/clusters/{}/brokers", Key),
    ("GET", "/v3/clusters/{}/brokers/{}", Key),
    ("GET", "/v3/clusters/{}/topics", May(Describe, On::Some)),
    ("POST", "/v3/clusters/{}/topics", May(Admin, On::Some)),
    ("GET", "/v3/clusters/{}/topics/{name}", May(Describe, Name)),
    ("PATCH DELETE", "/v3/clusters/{}/topics/{name}", May(Admin, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/configs", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/configs/{}", May(Describe, Name)),
    ("POST", "/v3/clusters/{}/topics/{name}/configs:alter", May(Admin, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions/{}", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions/-/reassignment", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions/{}/reassignment", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions/{}/replicas", May(Describe, Name)),
    ("GET", "/v3/clusters/{}/topics/{name}/partitions/{}/replicas/{}", May(Describe, Name)),
    ("POST", "/v3/clusters/{}/topics/{name}/records", May(Produce, Name)),
    ("POST", "/v3/clusters/{}/topics/{name}/records:batch", May(Produce, Name)),
    ("GET", "/v3/clusters/{}/consumer-groups", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/consumers", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/consumers/{}", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/consumers/{}/assignments", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/consumers/{}/assignments/{name}/partitions/{}", May(Consume, Name)),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/lag-summary", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/lags", SOME_CONSUME),
    ("GET", "/v3/clusters/{}/consumer-groups/{}/lags/{name}/partitions/{}", May(Consume, Name)),
    ("GET", "/streams", May(Describe, On::Some)),
    ("GET", "/streams/{name}", May(Describe, Name)),
    ("POST DELETE", "/streams/{name}", May(Admin, Name)),
    ("PUT", "/streams/{name}/record", May(Produce, Name)),
    ("PUT", "/streams/{name}/records", May(Produce, Name)),
    ("GET", "/streams/{name}/records", May(Consume, Name)),
    ("GET", "/streams/{name}/sharditerator", May(Consume, Name)),
];

/// What a route demands, and the place of the name among its path's parameters. None for a route
/// that is not in the table. `template` is the router's, whatever it calls its parameters.
pub fn demand(method: &str, template: &str) -> Option<(Demand, Option<usize>)> {
    let method = if method == "HEAD" { "GET" } else { method };
    let takes = |methods: &str| methods == "*" || methods.split(' ').any(|taken| taken == method);
    let (_, known, demand) = ROUTES.iter().find(|(methods, known, _)| takes(methods) && is_same(known, template))?;
    let parameters = known.split('/').filter(|segment| segment.starts_with('{'));
    let place = parameters.enumerate().find(|(_, parameter)| *parameter == "{name}").map(|(place, _)| place);
    Some((*demand, place))
}

fn is_same(known: &str, template: &str) -> bool {
    let (mut known, mut template) = (known.split('/'), template.split('/'));
    loop {
        match (known.next(), template.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a.starts_with('{') && b.starts_with('{') => {}
            // Each file of the dashboard has a route of its own.
            (Some("{}"), Some(b)) if !b.starts_with('{') && is_file(b) => {}
            _ => return false,
        }
    }
}

fn is_file(segment: &str) -> bool {
    segment.ends_with(".js") || segment.ends_with(".css")
}

/// Methods (or `*`) and templates, for a test that compares them with others.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str, Demand)> {
    ROUTES.iter().flat_map(|(methods, template, demand)| methods.split(' ').map(|m| (m, *template, *demand)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_its_shape_and_the_name_by_its_place() {
        for (method, template, found) in [
            ("GET", "/topics/{topic}", Some((May(Describe, Name), Some(0)))),
            ("HEAD", "/topics/{topic}", Some((May(Describe, Name), Some(0)))),
            ("POST", "/topics/{topic}/partitions/{partition}", Some((May(Produce, Name), Some(0)))),
            ("DELETE", "/v3/clusters/{cluster_id}/topics/{topic_name}", Some((May(Admin, Name), Some(1)))),
            ("GET", "/assets/app.js", Some((Key, None))),
            ("PUT", "/pin", Some((Key, None))),
            ("PUT", "/topics/{topic}", None),
            ("GET", "/topics/x", None),
            ("GET", "/topics/{topic}/", None),
            ("GET", "/api", None),
        ] {
            assert_eq!(demand(method, template), found, "{method} {template}");
        }
    }
}
