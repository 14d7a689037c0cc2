use super::{Room, crossed, foreign_crates, misdrawn, room, room_of};
use crate::graph::Graph;
use crate::tree::Tree;

const ROOMS: &[Room] = &[
    room("low", &[], &["serde"]),
    room("high", &["low"], &[]),
    room("high::attic", &["high", "low"], &["clap", "serde"]),
];

fn house(low: &str, attic: &str) -> Tree {
    Tree::of(&[
        ("src/lib.rs", "mod high;\nmod low;\n"),
        ("src/low.rs", low),
        ("src/high/mod.rs", "mod attic;\nuse crate::low::b;\n"),
        ("src/high/attic.rs", attic),
    ])
}

fn crossings(low: &str, attic: &str) -> Vec<String> {
    let tree = house(low, attic);
    crossed(ROOMS, &tree, &Graph::new(&tree)).into_iter().map(|hit| format!("{}:{}", hit.place, hit.line)).collect()
}

#[test]
fn nobody_imports_upwards() {
    assert_eq!(crossings("fn b() {}", "use crate::{high::c, low::b};"), Vec::<String>::new());
    assert_eq!(crossings("fn b() {}\nuse crate::high::c;\n", "fn d() {}"), ["src/low.rs:2"]);
    assert_eq!(crossings("fn b() {\n    crate::high::c();\n}\n", "fn d() {}"), ["src/low.rs:2"]);
    assert_eq!(crossings("fn b() {\n    super::high::c();\n}\n", "fn d() {}"), ["src/low.rs:2"]);
    assert_eq!(
        crossings("#[cfg(test)]\nmod tests {\n    use crate::high::c;\n}\nfn b() {}", "fn d() {}"),
        Vec::<String>::new()
    );
}

/// `high` may not see its own attic, and each use of an imported name is no offence of its own.
#[test]
fn a_room_within_a_room_is_another() {
    let tree = Tree::of(&[
        ("src/lib.rs", "mod high;\n"),
        ("src/high/mod.rs", "mod attic;\nuse attic::D;\nfn a() { D::new(D::b()) }\n"),
        ("src/high/attic.rs", "fn d() {}\n"),
    ]);
    assert_eq!(crossed(ROOMS, &tree, &Graph::new(&tree)).len(), 1);
}

#[test]
fn crates_belong_to_rooms() {
    let tree = house("use clap::Parser;\nuse serde::Serialize;\n", "use clap::Parser;\n");
    let found = foreign_crates(ROOMS, &tree, &Graph::new(&tree));
    assert_eq!(found.iter().map(|hit| hit.place.as_str()).collect::<Vec<_>>(), ["src/low.rs"]);
}

#[test]
fn the_longest_name_is_the_room() {
    let room = |path: &[&str]| {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        room_of(ROOMS, &path).map(|room| room.name)
    };
    assert_eq!(room(&["high", "attic", "x"]), Some("high::attic"));
    assert_eq!(room(&["high", "attics"]), Some("high"));
    assert_eq!(room(&["highs"]), None);
}

#[test]
fn the_table_and_the_rooms_agree() {
    let tree = house("fn b() {}", "fn d() {}");
    assert_eq!(misdrawn(ROOMS, &tree), Vec::<String>::new());
    assert!(misdrawn(&ROOMS[1..], &tree)[0].contains("src/low.rs is in no room"));
    assert!(misdrawn(&ROOMS[1..], &tree)[1].contains("high may import low, which is not in the table"));
    let stale = [room("low", &[], &[]), room("high", &[], &[]), room("cellar", &[], &[])];
    assert!(misdrawn(&stale, &tree)[0].contains("cellar has no file"));
}
