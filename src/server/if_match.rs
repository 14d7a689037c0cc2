//! `If-Match`: which version of a thing a request changes, so that of two who change it at once none undoes what the other did
//! (RFC 9110, section 13.1.1).

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;

use super::problem::Problem;

/// No more of what a client named is repeated to it.
const REPEATED_MAX: usize = 100;

/// What the header of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Nothing, or that any version will do.
    Any,
    /// One of these. What stands in quotes; weak tags are left out, since they name no version for certain.
    Tags(Vec<String>),
}

/// How a version is named in `ETag`.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

impl IfMatch {
    /// Reads it; several headers are one list.
    ///
    /// # Errors
    /// 400 where it is not what RFC 9110 says.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let malformed =
            || Problem::bad_request("the header If-Match must be * or names of versions in quotes, such as \"3\"");
        let values = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().map_err(|_| malformed()));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        match values[..] {
            [] => Ok(Self::Any),
            [value] if value.trim() == "*" => Ok(Self::Any),
            _ => tags(&values.join(",")).map(Self::Tags).ok_or_else(malformed),
        }
    }

    /// Whether it is made for this version.
    pub(super) fn names(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&version.to_string()),
        }
    }
}

impl std::fmt::Display for IfMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Tags(tags) if tags.is_empty() => f.write_str("none for certain"),
            Self::Tags(tags) => {
                tags.join(" or ").chars().take(REPEATED_MAX).try_for_each(|letter| write!(f, "{letter}"))
            }
        }
    }
}

/// The strong ones of a list of entity tags, in which commas may stand between quotes as well. `None` where it is none, or empty.
fn tags(list: &str) -> Option<Vec<String>> {
    let (mut strong, mut count, mut rest) = (Vec::new(), 0_u32, list);
    loop {
        // A list may have empty places.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return (count > 0).then_some(strong);
        }
        let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let after = after.trim_start_matches([' ', '\t']);
        let is_tag = tag.chars().all(|letter| letter.is_ascii_graphic());
        let is_apart = after.is_empty() || after.starts_with(',');
        if !is_tag || !is_apart {
            return None;
        }
        if !is_weak {
            strong.push(tag.to_owned());
        }
        count = count.checked_add(1)?;
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_rfc_has_them() {
        for (list, strong) in
            [(r#""1""#, &["1"][..]), (r#" "1" , "a,b",, W/"3","#, &["1", "a,b"]), (r#"W/"3""#, &[]), (r#""""#, &[""])]
        {
            assert_eq!(tags(list).unwrap(), strong, "{list}");
        }
        for wrong in ["", ",", "1", r#""1"#, r#"1""#, r#"w/"1""#, r#""1" "2""#, r#""1"x"#, r#"*, "1""#, r#""a b""#] {
            assert_eq!(tags(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let of = |values: &[&'static str]| {
            let values = values.iter().map(|value| (IF_MATCH, axum::http::HeaderValue::from_static(value)));
            IfMatch::of(&values.collect::<HeaderMap>())
        };
        assert_eq!(of(&[]).unwrap(), IfMatch::Any);
        assert_eq!(of(&[" * "]).unwrap(), IfMatch::Any);
        let two = of(&["\"1\"", "\"2\""]).unwrap();
        assert!(two.names(1) && two.names(2) && !two.names(3));
        assert_eq!(two.to_string(), "1 or 2");
        assert!(of(&["*", "\"1\""]).is_err());
    }
}
