//! Texts that are kept in `snapshots/`, and compared with what there is now.

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use crate::source::literals;

/// A name, and the text under it.
pub(crate) type Named = (String, String);

/// Compares one text.
pub(crate) fn keep(name: &str, text: &str) {
    keep_all(&[(name.to_owned(), text.to_owned())]);
}

/// Files are named by what they hold, not by the module that asks.
fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Compares all of them, so that one run shows every difference and not the first alone.
pub(crate) fn keep_all(texts: &[Named]) {
    let differs = |(name, text): &&Named| catch_unwind(|| compare(name, text)).is_err();
    let differing: Vec<&str> = texts.iter().filter(differs).map(|(name, _)| name.as_str()).collect();
    assert!(
        differing.is_empty(),
        "{differing:?} differ: `INSTA_UPDATE=always cargo test --locked --test snapshots` accepts them"
    );
}

fn names() -> BTreeSet<String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/snapshots");
    let files = std::fs::read_dir(directory).map_or_else(|_| Vec::new(), |files| files.flatten().collect());
    files.iter().filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".snap")?.to_owned())).collect()
}

/// A file of this group that nothing writes any more is told too: what it speaks of has gone.
pub(crate) fn none_is_left_over(group: &str, texts: &[Named]) {
    let written: BTreeSet<String> = texts.iter().map(|(name, _)| name.clone()).collect();
    let left: Vec<_> = names().into_iter().filter(|name| name.starts_with(group) && !written.contains(name)).collect();
    assert!(left.is_empty(), "{left:?} are snapshots of nothing: remove them");
}

/// Each of the others stands by its name in one of these files.
#[test]
fn no_snapshot_is_left_over() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");
    let sources = std::fs::read_dir(directory).expect("a directory").flatten().map(|file| file.path());
    let sources = sources.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).expect("a file"));
    let literals: BTreeSet<String> = sources.flat_map(|source| literals(&source)).map(|literal| literal.text).collect();
    let is_written = |name: &str| literals.contains(name) || literals.contains(name.trim_start_matches("page-"));
    let left: Vec<_> = names().into_iter().filter(|name| !name.starts_with("help-") && !is_written(name)).collect();
    assert!(left.is_empty(), "{left:?} are snapshots of nothing: remove them");
}
