//! Names in pages: what is read shows what is hidden in it, for it would reorder the row it is in. What forms and scripts
//! send back, which stands in attributes, stays the same name.

use axum::response::Html;

use crate::domain::printable::is_hidden;

/// A page or a part of one, in whose values `<` and `>` are escaped.
pub(super) fn page(html: &str) -> Html<String> {
    let mut page = String::with_capacity(html.len());
    let mut in_tag = false;
    for letter in html.chars() {
        match letter {
            '<' => in_tag = true,
            '>' => in_tag = false,
            _ => {}
        }
        match letter {
            '\n' | '\t' => page.push(letter),
            // HTML has no references for control characters; no name has any here.
            _ if is_hidden(letter) && in_tag && !letter.is_control() => {
                page.push_str(&format!("&#x{:x};", u32::from(letter)));
            }
            _ if is_hidden(letter) => page.extend(letter.escape_default()),
            _ => page.push(letter),
        }
    }
    Html(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_seen_as_it_is_and_sent_as_it_is() {
        let Html(page) =
            page("<p title=\"a\u{202e}\u{9b}\">b\u{202e}\u{1b}\n\t</p><input value=\"c\u{200b}\">d\u{feff}");
        let shown = "<p title=\"a&#x202e;\\u{9b}\">b\\u{202e}\\u{1b}\n\t</p><input value=\"c&#x200b;\">d\\u{feff}";
        assert_eq!(page, shown);
    }
}
