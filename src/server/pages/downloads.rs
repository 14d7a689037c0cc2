//! The usage report of a month as files: every digit of it, for spreadsheets, programs and cost tools.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query as Parameters, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::super::App;
use super::super::problem::Problem;
use super::super::usage_of_each::{self, Pages};
use super::focus;
use super::page_or;
use super::session::Visitor;
use super::usage::{Asked, ReportOf, asked, rows};
use crate::domain::printable::printable;
use crate::ledger::views::{PeriodLength, UsageRow};

/// The days of each account, or of one.
async fn found(app: &Arc<App>, visitor: &Visitor, of: ReportOf) -> Result<(Asked, Pages), Problem> {
    let asked = asked(visitor, of)?;
    let pages = match &asked.user {
        Some(user) => {
            let mut rows = rows(app, &asked).await?;
            for row in &mut rows {
                row.user = Some(user.clone());
            }
            usage_of_each::only(rows)
        }
        None => usage_of_each::pages(app.pools.clone(), asked.range(PeriodLength::Day)?).await?,
    };
    Ok((asked, pages))
}

fn attached(kind: &'static str, name: String, body: Body) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)], body).into_response()
}

fn lines(rows: &[UsageRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let (day, user) = (row.period_start.get(..10).unwrap_or_default(), quoted(row.user.as_deref()));
        let (credits, cpu, gpu) = (row.total_credits, row.total_virtual_cpu_time, row.total_virtual_gpu_time);
        let _ = write!(text, "{day},{user},{credits},{cpu},{gpu},{}\r\n", row.total_tokens_consumed);
    }
    text
}

pub(super) async fn csv(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, pages)| {
        let head = "day,user,credits,virtual_cpu_seconds,virtual_gpu_seconds,tokens\r\n".to_owned();
        let body = usage_of_each::written(head, pages, lines, "");
        attached("text/csv; charset=utf-8", format!("usage-{}.csv", asked.month), body)
    });
    page_or(&app, &visitor, made).await
}

pub(super) async fn focus(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, pages)| {
        let name = format!("usage-{}-focus.csv", asked.month);
        attached("text/csv; charset=utf-8", name, usage_of_each::written(focus::head(), pages, focus::written, ""))
    });
    page_or(&app, &visitor, made).await
}

pub(super) async fn json(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, pages)| {
        attached("application/json", format!("usage-{}.json", asked.month), usage_of_each::json(pages))
    });
    page_or(&app, &visitor, made).await
}

/// RFC 4180; and no cell that a spreadsheet would take for a formula.
pub(super) fn quoted(text: Option<&str>) -> String {
    let text = printable(text.unwrap_or_default());
    let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula() {
        assert_eq!(quoted(Some("=1+\"1\"")), "\"'=1+\"\"1\"\"\"");
        assert_eq!(quoted(Some("ann")), "\"ann\"");
        assert_eq!(quoted(Some("a\u{202e}")), "\"a\\u{202e}\"");
    }
}
