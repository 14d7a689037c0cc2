//! The usage report of a month as files: every digit of it, for spreadsheets, programs and cost tools.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query as Parameters, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::super::App;
use super::super::problem::Problem;
use super::focus;
use super::page_or;
use super::session::Visitor;
use super::usage::{Asked, ReportOf, asked, rows};
use crate::domain::printable::printable;
use crate::ledger::views::{PeriodLength, UsageRow};

/// The days of each account.
async fn found(app: &Arc<App>, visitor: &Visitor, of: ReportOf) -> Result<(Asked, Vec<UsageRow>), Problem> {
    let asked = asked(visitor, of)?;
    let mut rows = rows(app, &asked, PeriodLength::Day, true).await?;
    for row in &mut rows {
        row.user = row.user.take().or_else(|| asked.user.clone());
    }
    Ok((asked, rows))
}

fn attached(kind: &'static str, name: String, body: impl IntoResponse) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)], body).into_response()
}

pub(super) async fn csv(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, rows)| {
        let mut text = "day,user,credits,virtual_cpu_seconds,virtual_gpu_seconds,tokens\r\n".to_owned();
        for row in &rows {
            let (day, user) = (row.period_start.get(..10).unwrap_or_default(), quoted(row.user.as_deref()));
            let (credits, cpu, gpu) = (row.total_credits, row.total_virtual_cpu_time, row.total_virtual_gpu_time);
            let _ = write!(text, "{day},{user},{credits},{cpu},{gpu},{}\r\n", row.total_tokens_consumed);
        }
        attached("text/csv; charset=utf-8", format!("usage-{}.csv", asked.month), text)
    });
    page_or(&app, &visitor, made).await
}

pub(super) async fn focus(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, rows)| {
        let name = format!("usage-{}-focus.csv", asked.month);
        attached("text/csv; charset=utf-8", name, focus::written(&rows))
    });
    page_or(&app, &visitor, made).await
}

pub(super) async fn json(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Parameters(of): Parameters<ReportOf>,
) -> Response {
    let made = found(&app, &visitor, of).await.map(|(asked, rows)| {
        let disposition = format!("attachment; filename=\"usage-{}.json\"", asked.month);
        ([(CONTENT_DISPOSITION, disposition)], Json(rows)).into_response()
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
