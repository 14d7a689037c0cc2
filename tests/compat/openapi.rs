//! The documented API: what a client was promised is promised still.

use serde_json::Value;

use crate::fixture::versions;
use crate::service::Service;
use crate::station::Station;

/// What the new document lacks of the old one: operations, parameters, fields.
struct Compared<'a> {
    old: &'a Value,
    new: &'a Value,
    lacks: Vec<String>,
}

impl Compared<'_> {
    fn operations(&mut self) {
        for (path, methods) in self.old["paths"].as_object().unwrap() {
            for (method, old) in methods.as_object().unwrap() {
                let new = &self.new["paths"][path][method];
                let what = format!("{method} {path}");
                if new.is_null() {
                    self.lacks.push(what);
                    continue;
                }
                self.parameters(old, new, &what);
                for status in old["responses"].as_object().unwrap().keys() {
                    if new["responses"][status].is_null() {
                        self.lacks.push(format!("{what}: the response {status}"));
                    }
                }
            }
        }
    }

    /// Those that a client sends are taken, and none is asked for that it does not send.
    fn parameters(&mut self, old: &Value, new: &Value, what: &str) {
        let list = |operation: &Value| operation["parameters"].as_array().cloned().unwrap_or_default();
        let (olds, news) = (list(old), list(new));
        let find = |all: &[Value], name: &Value| all.iter().any(|parameter| parameter["name"] == *name);
        for old in &olds {
            if !find(&news, &old["name"]) {
                self.lacks.push(format!("{what}: the parameter {}", old["name"]));
            }
        }
        for new in news.iter().filter(|new| new["required"] == true) {
            if !find(&olds, &new["name"]) {
                self.lacks.push(format!("{what}: the parameter {} was not needed", new["name"]));
            }
        }
    }

    fn schemas(&mut self) {
        for (name, old) in self.old["components"]["schemas"].as_object().unwrap() {
            let new = self.new["components"]["schemas"][name].clone();
            self.schema(old, &new, name);
        }
    }

    fn schema(&mut self, old: &Value, new: &Value, what: &str) {
        for (field, old) in old["properties"].as_object().into_iter().flatten() {
            let new = &new["properties"][field];
            if new.is_null() {
                self.lacks.push(format!("{what}.{field}"));
            } else {
                let of = |schema: &Value| (schema["type"].clone(), schema["$ref"].clone());
                if of(old) != of(new) {
                    self.lacks.push(format!("{what}.{field}: {} became {}", old, new));
                }
                self.schema(old, new, &format!("{what}.{field}"));
            }
        }
        let words = |schema: &Value| schema["enum"].as_array().cloned().unwrap_or_default();
        let known = words(new);
        self.lacks.extend(words(old).iter().filter(|word| !known.contains(word)).map(|word| format!("{what}: {word}")));
    }
}

#[test]
fn what_was_documented_is_there() {
    let station = Station::new();
    let service = Service::start(&station);
    let new = service.ask("", "GET", "/api/v1/openapi.json", "").body;
    for version in versions() {
        let old = version.json("wire/openapi.json");
        let mut compared = Compared { old: &old, new: &new, lacks: Vec::new() };
        compared.operations();
        compared.schemas();
        assert!(compared.lacks.is_empty(), "{}: {:#?}", version.name, compared.lacks);
    }
}
