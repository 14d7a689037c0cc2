use super::{Function, files, functions, functions_of};
use crate::scan::Source;
use crate::tree::Tree;

#[test]
fn a_function_counts_from_its_name_to_its_brace() {
    let text = r#"#[x]
fn a(
    b: u8,
) -> [u8; 2]
where
    u8: C,
{
    let d = "}"; // }
    [0; 2]
}

trait E {
    fn f(&self);
    fn g() {}
}
let h: fn (u8) = x;
"#;
    let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
    assert_eq!(functions_of(&Source::new(text).code), [function("a", 2, 9), function("g", 14, 1)]);
}

#[test]
fn fifty_lines_are_enough_for_a_function() {
    let of = |lines: usize| {
        let tree = Tree::of(&[("src/lib.rs", &format!("fn a() {{\n{}}}\n", "b();\n".repeat(lines - 2)))]);
        functions(&tree).into_iter().map(|hit| (hit.place, hit.count)).collect::<Vec<_>>()
    };
    assert_eq!(of(50), []);
    assert_eq!(of(51), [("src/lib.rs a".to_owned(), 51)]);
}

#[test]
fn four_hundred_and_fifty_are_enough_for_a_file() {
    let of = |lines| {
        let mut tree = Tree::of(&[("src/lib.rs", &"\n".repeat(lines))]);
        tree.texts.insert("tests/run.py".to_owned(), "\n".repeat(lines));
        files(&tree).into_iter().map(|hit| hit.count).collect::<Vec<_>>()
    };
    assert_eq!(of(450), Vec::<usize>::new());
    assert_eq!(of(451), [451, 451]);
}
