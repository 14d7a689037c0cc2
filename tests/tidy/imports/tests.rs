use super::{Target, paths, split_use, uses};
use crate::graph::Graph;
use crate::tree::Tree;

/// What `src/a/b.rs` imports; `+` stands before a path that begins with an imported name.
fn imported(text: &str) -> Vec<String> {
    let tree = Tree::of(&[
        ("src/lib.rs", "mod a;\nmod runner;\n"),
        ("src/a/mod.rs", "mod b;\n"),
        ("src/a/b.rs", text),
        ("src/a/b/child.rs", "fn c() {}\n"),
        ("src/runner.rs", "fn x() {}\n"),
    ]);
    let file = tree.files.iter().find(|file| file.path == "src/a/b.rs").unwrap();
    let written = |import: &super::Import| {
        let path = match &import.target {
            Target::Inside(path) => path.join("::"),
            Target::Outside(name) => format!("{name}!"),
        };
        if import.is_repeated { format!("+{path}") } else { path }
    };
    Graph::new(&tree).imports(file).iter().map(written).collect()
}

#[test]
fn groups_are_taken_apart() {
    let mut found = Vec::new();
    split_use("crate::{\n    a::{self, b as c, d::{e, f as _}},\n    g::*,\n    h,\n}", &[], &mut found);
    let leaves: Vec<(String, Option<&str>)> =
        found.iter().map(|leaf| (leaf.path.join("::"), leaf.alias.as_deref())).collect();
    let leaf = |path: &str, alias| (path.to_owned(), alias);
    let expected = [
        leaf("crate::a", Some("a")),
        leaf("crate::a::b", Some("c")),
        leaf("crate::a::d::e", Some("e")),
        leaf("crate::a::d::f", None),
        leaf("crate::g::*", None),
        leaf("crate::h", Some("h")),
    ];
    assert_eq!(leaves, expected);
}

#[test]
fn a_use_is_an_item() {
    let code =
        "pub(crate) use a;\nfn f() -> impl Iterator<Item = u8> + use<'a> {\n    use b::c;\n}\npub use d;\n#[x]\nuse e;";
    let trees: Vec<&str> = uses(code).into_iter().map(|(_, range)| &code[range]).collect();
    assert_eq!(trees, ["a", "b::c", "d", "e"]);
}

#[test]
fn paths_in_code_are_found() {
    let found: Vec<String> =
        paths("a::b(c.d::<E>()); <F as g::H>::i(); j").into_iter().map(|(_, path)| path.join("::")).collect();
    assert_eq!(found, ["a::b", "g::H"]);
}

#[test]
fn names_are_followed_to_where_they_come_from() {
    assert_eq!(imported("use crate::runner::{x, y};"), ["runner::x", "runner::y"]);
    assert_eq!(imported("use super::c;\nuse super::super::runner;"), ["a::c", "runner"]);
    assert_eq!(imported("fn f() { crate::runner::x(); }"), ["runner::x"]);
    assert_eq!(imported("fn f() -> crate::runner::X { g(super::Y) }"), ["runner::X", "a::Y"]);
    assert_eq!(
        imported("mod child;\nuse child::C;\nfn f() { self::child::d() }"),
        ["a::b::child::C", "a::b::child::d"]
    );
    assert_eq!(imported("mod inner {\n    use super::super::c;\n}"), ["a::c"]);
    assert_eq!(imported("use crate::runner as r;\nfn f() { r::x() }"), ["runner", "+runner::x"]);
    assert_eq!(imported("use crate::runner;\nuse runner::x;"), ["runner", "+runner::x"]);
    assert_eq!(imported("use std::io;\nfn f() { io::x(); Self::y(); Z::W }"), Vec::<String>::new());
}

#[test]
fn crates_are_found_in_use_and_in_code() {
    assert_eq!(imported("use serde::{A, B};"), ["serde!", "serde!"]);
    assert_eq!(imported("#[derive(Debug, clap::ValueEnum)]\nenum A {}"), ["clap!"]);
    assert_eq!(imported("use clap::Parser;\nfn f() { Parser::x() }"), ["clap!", "+clap!"]);
}

#[test]
fn quotes_comments_and_tests_import_nothing() {
    let text = r#"
// use crate::runner::x;
const A: &str = "crate::runner::x";
#[cfg(test)]
mod tests {
    use crate::runner::x;
}
"#;
    assert_eq!(imported(text), Vec::<String>::new());
    assert_eq!(imported(&format!("{text}use crate::runner::y;")), ["runner::y"]);
}
