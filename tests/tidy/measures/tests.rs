use super::{allows, dropped, hollow_docs, is_no, measured, saturating, shipped, sleeps, text_errors};
use crate::measures::Hit;
use crate::tree::Tree;

/// The lines at which `measure` strikes in a file of `src/ledger`.
fn lines(measure: impl Fn(&Tree) -> Vec<Hit>, text: &str) -> Vec<usize> {
    let tree = Tree::of(&[("src/lib.rs", "mod ledger;"), ("src/ledger/mod.rs", text)]);
    measure(&tree).into_iter().map(|hit| hit.line).collect()
}

const NONE: [usize; 0] = [];

#[test]
fn results_that_nobody_looks_at() {
    let text = "\
fn f() {
    a.b().ok();
    let c = d().ok();
    e
        .f(|g| { h; })
        .ok();
    let _ = i();
    let _ = write!(text, \"j\");
    _ = k();
    drop(l.m());
    drop(n);
    drop(o()?);
    drop((p(), q));
    if r { s() }
    t().ok();
    u = v().ok();
    // It may be gone already.
    w().ok();
    let _x = y();
    return z().ok();
}
fn select() {
    select! { _ = a() => {} }
}
";
    let mut found = lines(dropped, text);
    found.sort_unstable();
    assert_eq!(found, [2, 6, 7, 9, 10, 15]);
}

#[test]
fn errors_that_are_text() {
    assert_eq!(lines(text_errors, "fn a() -> Result<(), String> {}"), [1]);
    assert_eq!(lines(text_errors, "fn a() -> Result<\n    Vec<(u8, String)>,\n    String,\n> {}"), [1]);
    assert_eq!(lines(text_errors, "fn a(b: impl Fn() -> Result<impl Fn(u8) -> u8, String>) {}"), [1]);
    assert_eq!(lines(text_errors, "fn a() -> Result<String, Error> {}\nfn b() -> Result<String> {}"), NONE);
    assert_eq!(lines(text_errors, "fn a() -> Result<(u8, String), Error> {}"), NONE);
}

#[test]
fn reads_without_a_type_and_sums_that_saturate() {
    let unasked = |tree: &Tree| shipped(tree, &["unasked("]);
    assert_eq!(
        lines(unasked, "a => Err(unasked()),\n// unasked()\n#[cfg(test)]\nfn t() { unasked() }\nfn unasked() {}"),
        [1, 5]
    );
    assert_eq!(lines(saturating, "a.saturating_add(b);\n\"saturating_\";"), [1]);
    let elsewhere = Tree::of(&[("src/lib.rs", "a.saturating_add(b);")]);
    assert_eq!(saturating(&elsewhere), []);
}

#[test]
fn lints_are_expected_not_allowed() {
    let text = r#"#![allow(a, reason = "b")]
#[cfg_attr(test, allow(c))]
fn d() { e.allow(f); allow(g) }
#[expect(h)]
fn i() {}
"#;
    assert_eq!(lines(allows, text), [1, 2]);
    // In a test it takes a reason.
    assert_eq!(lines(allows, "#[cfg(test)]\nmod t {\n    #![allow(a, reason = \"b\")]\n    #![allow(c)]\n}"), [4]);
}

#[test]
fn nothing_is_no_url() {
    let text = r#"a("{x} is no URL");
b("these are none: c");
d("there is no e", "There are no f");
g("this is not h");
"#;
    assert_eq!(lines(is_no, text), [1, 2]);
    assert_eq!(lines(is_no, "// it is no x\nlet is = no;\n#[error(\"{0} is none\")]\nstruct A;"), [3]);
}

#[test]
fn docs_that_say_too_little() {
    let text = "\
/// The name.
a: u8,
/// The time of the
/// last report.
b: u8,
// no doc
//// nor this
/// In seconds.
c: u8,
/// One
///
/// two.
";
    assert_eq!(lines(hollow_docs, text), [1, 8, 10]);
    assert_eq!(lines(hollow_docs, "#[cfg(test)]\nmod t {\n    /// A test.\n    fn a() {}\n}\n"), NONE);
}

#[test]
fn tests_that_sleep() {
    let text = r#"fn a() { pause(b); }
#[cfg(test)]
mod t {
    fn c() { std::thread::sleep(d); sys::pause(e); "sleep("; }
    fn pause(f: u8) {}
}
"#;
    assert_eq!(lines(sleeps, text), [4, 4]);
    let mut tree = Tree::of(&[]);
    let script = "import time\ntime.sleep(1)\n# time.sleep(2)\nsleep 3\nnosleep 4\n";
    for path in ["tests/a/run.py", "tests/bench/run.py", "deploy/x.py"] {
        tree.texts.insert(path.to_owned(), script.to_owned());
    }
    let found: Vec<(String, usize)> = sleeps(&tree).into_iter().map(|hit| (hit.place, hit.line)).collect();
    assert_eq!(found, [("tests/a/run.py".to_owned(), 2), ("tests/a/run.py".to_owned(), 4)]);
}

/// A ratchet keeps its places by these names, in a file of three columns.
#[test]
fn measures_have_names_of_their_own() {
    let tree = Tree::of(&[("src/lib.rs", "#[ignore]\nfn a() { todo!() }\n")]);
    let measures = measured(&tree);
    let names: Vec<&str> = measures.iter().map(|measure| measure.name).collect();
    assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
    assert!(!names.iter().any(|name| name.contains(['\t', '\n', '#', '*'])));
    let struck: Vec<&str> =
        measures.iter().filter(|measure| !measure.hits.is_empty()).map(|measure| measure.name).collect();
    assert_eq!(struck, ["ignored test", "unfinished"]);
}
