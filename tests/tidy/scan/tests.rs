use super::{Source, outside_brackets, places, words};

fn shipped(text: &str) -> String {
    Source::new(text).shipped()
}

#[test]
fn quotes_and_comments_are_no_code() {
    let text = r####"let a = "x // {"; // b {
let c = '"'; /* d /* e */ " */ let f = '{';
let g = r#"h " {"# ; let i = b"j"; let k = br"l\"; let m = '\'' ; let n = "\" o";
/// p's {
fn q<'r>(s: &'r str) -> &'r str { s } // t — ü
let u = "ä — {"; let v = 'é'; let w = '\u{1F600}';
"####;
    let code = shipped(text);
    let left: Vec<&str> = words(&code).map(|word| &code[word]).collect();
    let names = ["let", "a", "let", "c", "let", "f", "let", "g", "r", "let", "i", "b", "let", "k", "br", "let", "m"];
    let rest = ["let", "n", "fn", "q", "r", "s", "r", "str", "r", "str", "s", "let", "u", "let", "v", "let", "w"];
    assert_eq!(left, [names.as_slice(), rest.as_slice()].concat());
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert_eq!((code.len(), code.lines().count()), (text.len(), text.lines().count()));
}

#[test]
fn each_view_has_its_part() {
    let source = Source::new("f(\"SELECT\"); // why\n#[cfg(test)]\nfn t() {\n    g(\"x\"); // never\n}\n");
    assert_eq!(source.shipped().trim(), "f(\"      \");");
    assert_eq!(source.shipped_with_literals().trim(), "f(\"SELECT\");");
    assert_eq!(source.shipped_literals().trim(), "SELECT");
    assert_eq!(source.shipped_comments().trim(), "// why");
    assert!(source.test_code().contains("g(\" \");"));
}

/// The former check stopped at the first `#[cfg(test)]`.
#[test]
fn what_stands_behind_tests_is_shipped() {
    let text = r#"
#[cfg(test)]
mod tests {
    fn a() { b("}", '}'); } // }
}
fn shipped() {}
#[cfg(test)]
use c;
let d;
"#;
    let code = shipped(text);
    let left: Vec<&str> = words(&code).map(|word| &code[word]).collect();
    assert_eq!(left, ["fn", "shipped", "let", "d"]);
}

#[test]
fn a_test_item_is_removed_as_a_whole() {
    let items = [
        "mod a;",
        "pub(crate) mod a { mod b; fn c() {} }",
        "use a::{b, c::{d}};",
        "pub(in crate::x) use a;",
        "fn a() -> [u8; 2] { b(); [0; 2] }",
        "pub async unsafe fn a<T>(b: T) where T: C { d }",
        "const fn a() { b }",
        "const A: [u8; 2] = { let b = 1; [b; 2] };",
        "static A: B = B { c: 1 };",
        "type A = B;",
        "impl<T> A for B<T> { fn c() { d } }",
        "struct A(B);",
        "pub struct A { b: c }",
        "enum A { B { c: d } }",
        "trait A { fn b(); }",
        "macro_rules! a { () => { b; }; }",
        "extern crate a;",
        "#[path = \"x.rs\"]\n#[allow(\n    dead_code,\n    reason = \"]\"\n)]\nmod a;",
    ];
    for item in items {
        for mark in
            ["#[cfg(test)]", "#[doc(hidden)]\n#[cfg(test)]", "#[cfg(all(test, unix))]", "#[cfg(all(unix, test))]"]
        {
            let code = shipped(&format!("before;\n{mark}\n{item}\nafter;"));
            let left: Vec<&str> = code.split_whitespace().collect();
            assert_eq!(left, ["before;", "after;"], "{mark} {item}");
        }
    }
}

#[test]
fn what_ships_as_well_stays() {
    for mark in [
        "#[cfg(not(test))]",
        "#[cfg(any(test, unix))]",
        "#[cfg(tests)]",
        "#[cfg_attr(test, derive(A))]",
        "// #[cfg(test)]",
    ] {
        assert!(shipped(&format!("{mark}\nfn kept() {{}}")).contains("kept"), "{mark}");
    }
    assert!(shipped("let text = \"#[cfg(test)]\";\nfn kept() {}").contains("kept"));
    // A field, an arm and an expression are no items.
    assert!(shipped("struct A {\n    #[cfg(test)]\n    kept: B,\n}").contains("kept"));
    assert!(shipped("match a {\n    #[cfg(test)]\n    B => kept(),\n}").contains("kept"));
}

#[test]
fn a_file_can_be_for_tests_as_a_whole() {
    assert_eq!(shipped("//! For tests.\n\n#![allow(a)]\n#![cfg(test)]\n\nfn b() {}\n").trim(), "");
    assert!(shipped("fn kept() {}\nmod c {\n    #![cfg(test)]\n}\n").contains("kept"));
}

#[test]
fn places_are_whole_words() {
    let found =
        |piece: &str| places("drop(a); backdrop(b); drop_all(); unasked_for(unasked)", piece).collect::<Vec<_>>();
    assert_eq!(found("drop("), [0]);
    assert_eq!(found("unasked").len(), 1);
}

#[test]
fn brackets_hide_what_they_hold() {
    assert_eq!(outside_brackets("f(a, [b; c]) { d } ; e", 0, b";"), Some(19));
    assert_eq!(outside_brackets("a) ;", 0, b";"), None);
}

#[test]
fn a_comment_beside_or_above_explains() {
    let source = Source::new("a();\nb();\n// Why.\nc();\nd(); // Why.\n");
    let is_explained = |piece: &str| {
        let at = source.code.find(piece).unwrap();
        source.is_explained(at..at)
    };
    assert_eq!(["a()", "b()", "c()", "d()"].map(is_explained), [false, false, true, true]);
}
