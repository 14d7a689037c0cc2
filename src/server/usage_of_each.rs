//! What each account used, page by page: nobody holds all of it at once, neither here nor who reads it. Each page is a question of its
//! own, so that a slow reader keeps no turn of others.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use futures_util::stream::{BoxStream, iter, once, try_unfold};
use futures_util::{StreamExt, TryStreamExt};

use super::pool::Pools;
use crate::ledger::LedgerError;
use crate::ledger::usage_range::UsageRange;
use crate::ledger::views::{Query, USAGE_ROWS_MAX, UsageRow, View, Whose};

/// Rows, so many at a time.
pub(super) type Pages = BoxStream<'static, Result<Vec<UsageRow>, LedgerError>>;

/// What one account used, or all of them together.
pub(super) async fn together(pools: &Pools, whose: Whose, range: UsageRange) -> Result<Vec<UsageRow>, LedgerError> {
    match pools.read(Query::Usage { whose, range }).await? {
        View::Usage(rows) => Ok(rows),
        _ => Err(LedgerError::unasked()),
    }
}

/// Rows that are all there are.
pub(super) fn only(rows: Vec<UsageRow>) -> Pages {
    iter([Ok(rows)]).boxed()
}

/// The rows that `keep` leaves of all, page by page.
pub(super) async fn chosen(mut pages: Pages, keep: fn(&mut Vec<UsageRow>)) -> Result<Vec<UsageRow>, LedgerError> {
    let mut rows = Vec::new();
    while let Some(more) = pages.try_next().await? {
        rows.extend(more);
        keep(&mut rows);
    }
    Ok(rows)
}

/// A page, and the cursor of the next.
pub(super) async fn page(
    pools: &Pools,
    range: UsageRange,
    after: Option<String>,
    count_max: u32,
) -> Result<(Vec<UsageRow>, Option<String>), LedgerError> {
    match pools.read(Query::UsageOfEach { range, after, count_max }).await? {
        View::UsagePage { rows, next } => Ok((rows, next)),
        _ => Err(LedgerError::unasked()),
    }
}

/// All pages, each of which is read when it is asked for. The first one is there: where that fails, nothing was answered yet.
pub(super) async fn pages(pools: Pools, range: UsageRange) -> Result<Pages, LedgerError> {
    let (rows, next) = page(&pools, range, None, USAGE_ROWS_MAX).await?;
    let others = try_unfold(next, move |after| {
        let pools = pools.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            page(&pools, range, Some(after), USAGE_ROWS_MAX).await.map(Some)
        }
    });
    Ok(only(rows).chain(others).boxed())
}

/// An answer of a head, of what each page is written as, and of a tail. One that breaks off has no end, as HTTP tells who reads it.
pub(super) fn written(
    head: String,
    pages: Pages,
    mut page: impl FnMut(&[UsageRow]) -> String + Send + 'static,
    tail: &'static str,
) -> Body {
    let head = once(async { Ok(Bytes::from(head)) });
    let tail = once(async move { Ok(Bytes::from_static(tail.as_bytes())) });
    let told = |error: &LedgerError| tracing::warn!(%error, "A report broke off.");
    Body::from_stream(head.chain(pages.inspect_err(told).map_ok(move |rows| Bytes::from(page(&rows)))).chain(tail))
}

/// The rows as one list of JSON.
pub(super) fn json(pages: Pages) -> Body {
    let mut is_first = true;
    let page = move |rows: &[UsageRow]| {
        let mut text = String::new();
        for row in rows {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(row).unwrap_or_default());
        }
        text
    };
    written("[".to_owned(), pages, page, "]")
}

/// Where the next page is, as RFC 8288 says it: relative to where this one was.
pub(super) fn link(parameters: &[(&str, Option<&str>)]) -> Option<HeaderValue> {
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |text, byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) => text + &char::from(byte).to_string(),
            byte => text + &format!("%{byte:02X}"),
        })
    };
    let pairs = parameters.iter().filter_map(|(name, text)| Some(format!("{name}={}", encoded((*text)?))));
    HeaderValue::from_str(&format!("<?{}>; rel=\"next\"", pairs.collect::<Vec<_>>().join("&"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(pages: Vec<Result<Vec<UsageRow>, LedgerError>>) -> Option<String> {
        let bytes = axum::body::to_bytes(json(iter(pages).boxed()), usize::MAX).await.ok()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_are_one_list_and_what_breaks_off_has_no_end() {
        let row = |user: &str| UsageRow { user: Some(user.to_owned()), ..UsageRow::default() };
        assert_eq!(text(vec![Ok(Vec::new())]).await.unwrap(), "[]");
        let all = text(vec![Ok(vec![row("a"), row("b")]), Ok(Vec::new()), Ok(vec![row("c")])]).await.unwrap();
        assert_eq!(serde_json::from_str::<Vec<UsageRow>>(&all).unwrap(), ["a", "b", "c"].map(row));
        assert!(text(vec![Ok(vec![row("a")]), Err(LedgerError::unasked())]).await.is_none());
    }

    #[test]
    fn a_link_is_encoded() {
        let link = link(&[("each", Some("true")), ("month", None), ("after", Some("1.o'brien \u{e4}"))]).unwrap();
        assert_eq!(link, "<?each=true&after=1.o%27brien%20%C3%A4>; rel=\"next\"");
    }
}
