use super::{Graph, circles, ties};
use crate::tree::Tree;

/// Files `a` to `e`, each of which imports what its letters name.
fn house(imports: [&str; 5]) -> Graph {
    let names = ["a", "b", "c", "d", "e"];
    let mut files = vec![("src/lib.rs".to_owned(), names.map(|name| format!("mod {name};\n")).concat())];
    for (name, imported) in names.into_iter().zip(imports) {
        let text = imported.chars().map(|other| format!("use crate::{other}::X;\n")).collect::<String>();
        files.push((format!("src/{name}.rs"), format!("fn f() {{}}\n{text}")));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    Graph::new(&Tree::of(&files))
}

fn counts(imports: [&str; 5]) -> (usize, usize) {
    let graph = house(imports);
    (circles(&graph).len(), ties(&graph).iter().map(|hit| hit.count).sum())
}

#[test]
fn circles_are_found_and_told_from_straight_lines() {
    assert_eq!(counts(["bc", "c", "d", "e", ""]), (0, 0));
    assert_eq!(counts(["b", "a", "d", "e", "c"]), (2, 2 + 6));
    assert_eq!(counts(["a", "", "", "", ""]), (0, 0));
}

/// Fewer circles, and yet worse.
#[test]
fn two_circles_that_are_joined_are_no_improvement() {
    assert_eq!(counts(["b", "ac", "d", "ca", ""]), (1, 12));
}

#[test]
fn a_circle_is_named() {
    let graph = house(["b", "c", "a", "a", ""]);
    assert_eq!(circles(&graph)[0].what, "3 files import each other: src/a.rs, src/b.rs, src/c.rs");
    assert_eq!(ties(&graph)[1].what, "the shortest circle is src/b.rs → src/c.rs → src/a.rs → src/b.rs");
}

#[test]
fn a_child_and_its_parent_can_be_a_circle() {
    let tree = Tree::of(&[
        ("src/lib.rs", "mod a;\n"),
        ("src/a/mod.rs", "mod b;\nfn f() { b::g() }\n"),
        ("src/a/b.rs", "use super::f;\n"),
    ]);
    assert_eq!(circles(&Graph::new(&tree)).len(), 1);
}
