use super::{Declared, Tree, declared, dependencies, paths_in, target_name};
use crate::scan::Source;

#[test]
fn a_file_is_what_its_modules_make_of_it() {
    let tree = Tree::of(&[
        ("src/lib.rs", "mod a;\npub mod b;\n#[cfg(test)]\nmod c;\n"),
        ("src/a.rs", "mod d;\n#[cfg(test)]\nmod tests;\nfn behind() {}\n"),
        ("src/a/d.rs", "fn d() {}\n"),
        ("src/a/tests.rs", "#[path = \"../suite/mod.rs\"]\n#[allow(\n    x\n)]\nmod suite;\n"),
        ("src/b/mod.rs", "mod e;\n"),
        ("src/b/e.rs", "fn e() {}\n"),
        ("src/c.rs", "fn c() {}\n"),
        ("src/suite/mod.rs", "mod more;\n"),
        ("src/suite/more.rs", "fn more() {}\n"),
        ("src/lost.rs", "fn lost() {}\n"),
        ("src/bin/x/main.rs", "mod y;\n"),
        ("src/bin/x/y.rs", "fn y() {}\n"),
    ]);
    let of = |path: &str| tree.files.iter().find(|file| file.path == path).unwrap();
    let module = |path: &str| of(path).module.as_ref().map(|module| module.join("::"));
    assert_eq!(module("src/a/d.rs").as_deref(), Some("a::d"));
    assert_eq!(module("src/b/e.rs").as_deref(), Some("b::e"));
    assert_eq!(module("src/bin/x/y.rs").as_deref(), Some("bin::x::y"));
    assert_eq!(module("src/suite/more.rs").as_deref(), Some("a::tests::suite::more"));
    assert_eq!(module("src/lost.rs"), None);
    let is_shipped = |path: &str| !of(path).shipped.is_empty();
    assert!(["src/a.rs", "src/a/d.rs", "src/b/e.rs"].into_iter().all(is_shipped));
    assert!(of("src/a.rs").shipped.contains("behind"));
    assert!(!["src/c.rs", "src/a/tests.rs", "src/suite/mod.rs", "src/suite/more.rs"].into_iter().any(is_shipped));
}

#[test]
fn what_is_both_shipped_and_tested_is_shipped() {
    let tree =
        Tree::of(&[("src/lib.rs", "#[cfg(test)]\n#[path = \"b.rs\"]\nmod a;\nmod b;\n"), ("src/b.rs", "fn b() {}\n")]);
    assert!(tree.files.iter().all(|file| !file.shipped.is_empty()));
}

#[test]
fn modules_are_declared_in_several_ways() {
    let text = "mod a;\npub(crate) mod b;\n// mod c;\nmod d {}\n#[path = \"x/y.rs\"]\nmod e;\n#[cfg(test)]\nmod f;\n";
    let module = |name: &str, path: Option<&str>, is_tested| Declared {
        name: name.to_owned(),
        path: path.map(str::to_owned),
        is_tested,
    };
    let expected = [
        module("a", None, false),
        module("b", None, false),
        module("e", Some("x/y.rs"), false),
        module("f", None, true),
    ];
    assert_eq!(declared(&Source::new(text)), expected);
}

#[test]
fn a_manifest_names_targets_and_crates() {
    let text = r#"
[dependencies]
serde-x = { path = "../y" }
nix = "1"

[dev-dependencies]
insta = "1"

[[test]]
path = "tests/it/main.rs"
"#;
    assert_eq!(paths_in(text, "z/"), ["z/tests/it/main.rs"]);
    assert_eq!(dependencies(text), ["nix", "serde_x"].map(str::to_owned).into());
    assert_eq!(target_name("src/lib.rs"), Vec::<String>::new());
    assert_eq!(target_name("src/main.rs"), ["main"]);
    assert_eq!(target_name("src/bin/x/main.rs"), ["bin", "x"]);
}
