//! The document of the API: it has the routes that the server has, each operation what it needs, and
//! each reference something it leads to.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    auth::{is_elsewhere, routes},
    harness::Server,
};

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/assets/openapi.json")).unwrap()
}

/// Method and path, the path's parameters without their names.
fn shape(method: &str, path: &str) -> (String, String) {
    let segment = |s: &str| if s.starts_with('{') { "{}".to_owned() } else { s.to_owned() };
    (method.to_uppercase(), path.split('/').map(segment).collect::<Vec<_>>().join("/"))
}

fn documented() -> BTreeSet<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &Value)| {
        methods.as_object().unwrap().keys().map(|method| shape(method, path)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_route_is_in_the_document_and_every_operation_is_a_route() {
    let document = documented();
    let is_of_a_page = |path: &str| path.starts_with("/assets/");
    let mut served = BTreeSet::new();
    for (method, template) in routes().into_iter().filter(|(_, template)| !is_of_a_page(template)) {
        // What takes every method is documented with those that someone would use.
        let (_, path) = shape("", &template);
        let methods: Vec<_> = match method.as_str() {
            "*" => document.iter().filter(|(_, known)| *known == path).map(|(m, _)| m.clone()).collect(),
            _ => vec![method],
        };
        assert!(!methods.is_empty(), "{template} is not in assets/openapi.json");
        served.extend(methods.iter().map(|method| shape(method, &template)));
    }
    let missing: Vec<_> = served.difference(&document).collect();
    assert!(missing.is_empty(), "not in assets/openapi.json: {missing:?}");
    let not_served = document.difference(&served).filter(|(_, path)| !is_of_a_page(path) && !is_elsewhere(path));
    let not_served: Vec<_> = not_served.collect();
    assert!(not_served.is_empty(), "in assets/openapi.json, and no route: {not_served:?}");
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path} {method}: the id is there twice");
            assert!(tags.contains(&&operation["tags"][0]), "{path} {method}");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{path} {method}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let names: BTreeSet<String> = parameters
                .iter()
                .map(|p| document.pointer(&p["$ref"].as_str().unwrap()[1..]).unwrap())
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            let in_path = path.split(['{', '}']).skip(1).step_by(2).map(str::to_owned).collect();
            assert_eq!(names, in_path, "{path} {method}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

#[test]
fn every_operation_that_stores_records_takes_a_key_and_says_how_it_is_refused() {
    let document = document();
    let key = json!({ "$ref": "#/components/parameters/idempotency-key" });
    let mut n_with_key = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let action = operation["x-corkboard-action"].as_str().unwrap_or_default();
            let stores = action.starts_with("produce") || path == "/kinesis";
            let takes_key = operation["parameters"].as_array().is_some_and(|all| all.contains(&key));
            assert_eq!(takes_key, stores, "{path} {method}");
            if stores {
                n_with_key += 1;
                // Kinesis has 400 for one and 503 for the other.
                let codes =
                    if path == "/kinesis" || path.starts_with("/streams") { ["400", "503"] } else { ["409", "422"] };
                assert!(codes.iter().all(|code| operation["responses"].get(code).is_some()), "{path} {method}");
            }
        }
    }
    assert_eq!(n_with_key, 8);
}

#[tokio::test]
async fn the_page_and_the_document_are_served_and_run_nothing_of_others() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await;
    assert_eq!((document.status, document.headers["content-type"].as_str()), (200, "application/json"));
    for path in ["/docs", "/assets/docs.js", "/assets/docs.css"] {
        let page = server.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = &page.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        for foreign in ["//cdn", "https://", "http://", "innerHTML", "<script>", " style="] {
            assert!(!page.body.contains(foreign), "{path}: {foreign}");
        }
    }
    let foreign = "GET /docs HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(server.ask(foreign).await.status, 421);
    let missing = server.get("/assets/missing.js").await;
    assert_eq!((missing.status, missing.body.as_str()), (404, r#"{"error":"there is no /assets/missing.js"}"#));
}
