//! Draws a [`Screen`]. Each line has a height from which on it is shown, so that a tiny terminal still lists something.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Rect},
    text::{Line, Span, Text},
    widgets::{Cell, Row, Table},
};

use super::{
    columns::{Column, GAP, SUB_TENANTS, TENANTS, WORKERS, cores, fit, memory},
    model::{Rates, SubTenantRow},
    palette::{Palette, Role},
    screen::{Level, Screen},
    sort::{Ranked, SortKey},
};
use crate::{
    cli::output::{count, time, wire},
    printable,
};

/// From these heights on: the keys, what is listed, what is not enforced, tenants.
const HELP_FROM: u16 = 4;
const LISTED_FROM: u16 = 6;
const DEGRADED_FROM: u16 = 8;
const TENANTS_FROM: u16 = 12;
/// Lines of tenants at most; the list matters more.
const TENANTS_MAX: usize = 6;

/// Draws it all, from above and from below; the list has what is left between.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, palette: Palette) {
    let area = frame.area();
    let mut rest = draw_lines(frame, area, state(screen, area.height, palette));
    if area.height >= TENANTS_FROM {
        rest = draw_tenants(frame, rest, (screen, palette));
    }
    if area.height >= LISTED_FROM {
        rest = draw_lines(frame, rest, listed(screen, palette));
    }
    let help_rows = u16::from(area.height >= HELP_FROM);
    let [list, help] = split(rest, rest.height.saturating_sub(help_rows));
    let marked = Some(screen.marked());
    match screen.level() {
        Level::SubTenants => {
            let rows: Vec<_> = screen.sub_tenants().collect();
            draw_rows(frame, list, &SUB_TENANTS, &rows, marked, (screen, palette));
        }
        Level::Workers(_) => {
            let rows: Vec<_> = screen.workers().collect();
            draw_rows(frame, list, &WORKERS, &rows, marked, (screen, palette));
        }
    }
    frame.render_widget(keys(screen, palette), help);
    make_plain(frame.buffer_mut());
}

/// A last guard: whatever was drawn, each cell shows itself and nothing else.
fn make_plain(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().chars().all(printable::is_plain) {
            let plain: String = cell.symbol().chars().filter(|character| printable::is_plain(*character)).collect();
            cell.set_symbol(if plain.is_empty() { "?" } else { &plain });
        }
    }
}

fn rows_of<T>(of: &[T]) -> u16 {
    u16::try_from(of.len()).unwrap_or(u16::MAX)
}

/// Draws these at the upper end of the area; what is left of it.
fn draw_lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) -> Rect {
    let [upper, rest] = split(area, rows_of(&lines));
    frame.render_widget(Text::from(lines), upper);
    rest
}

fn split(area: Rect, upper_rows: u16) -> [Rect; 2] {
    let upper = upper_rows.min(area.height);
    [Rect { height: upper, ..area }, Rect { y: area.y + upper, height: area.height - upper, ..area }]
}

/// How the supervisor is doing, and what is wrong.
fn state(screen: &Screen, height: u16, palette: Palette) -> Vec<Line<'_>> {
    let mut lines = vec![title(screen, palette)];
    let trouble = screen.trouble().into_iter().flat_map(|trouble| trouble.split("; "));
    let room = if height >= TENANTS_FROM { usize::MAX } else { 1 };
    lines.extend(trouble.take(room).map(|part| palette.span(Role::Bad, part).into()));
    let degraded = screen.shown().map(|shown| shown.health.degraded.join(", ")).unwrap_or_default();
    if height >= DEGRADED_FROM && !degraded.is_empty() {
        lines.push(palette.span(Role::Warning, format!("not enforced: {degraded}")).into());
    }
    lines
}

/// In one line; as it was when the supervisor last answered, when it does not.
fn title(screen: &Screen, palette: Palette) -> Line<'_> {
    let mut spans = vec![palette.span(Role::Title, "sublet ")];
    // First, where a narrow terminal still has it.
    if screen.is_paused() {
        spans.push(palette.span(Role::Warning, "PAUSED "));
    }
    if screen.trouble().is_some() {
        spans.push(palette.span(Role::Bad, "no answer, asking again "));
    }
    let Some(shown) = screen.shown() else {
        spans.extend(screen.trouble().is_none().then(|| palette.span(Role::Faint, "asking the supervisor")));
        return spans.into();
    };
    let health = &shown.health;
    let role = match (screen.trouble(), health.status.as_str()) {
        (Some(_), _) => Role::Faint,
        (None, "serving") => Role::Good,
        (None, _) => Role::Warning,
    };
    spans.push(palette.span(role, &health.status));
    spans.push(Span::raw(format!(
        "  cpu {} cores  workers {}  cells {}  in flight {}  queued {}",
        cores(shown.cpu_cores()),
        health.workers,
        health.cells,
        health.calls_in_flight,
        health.calls_queued
    )));
    spans.into()
}

/// Draws the tenants there is room for, and how many there is none for; what is left of the area.
fn draw_tenants(frame: &mut Frame<'_>, area: Rect, (screen, palette): (&Screen, Palette)) -> Rect {
    let Some(shown) = screen.shown().filter(|shown| !shown.tenants.is_empty()) else { return area };
    let room = TENANTS_MAX.min(usize::from(frame.area().height) / 6);
    let order = screen.sort().order(&shown.tenants, |_| true);
    // The line that says how many are left out takes the place of one.
    let fitting = if order.len() > room { room.saturating_sub(1) } else { room };
    let rows: Vec<_> = order.iter().take(fitting).filter_map(|at| shown.tenants.get(*at)).collect();
    let [upper, rest] = split(area, rows_of(&rows).saturating_add(1));
    draw_rows(frame, upper, &TENANTS, &rows, None, (screen, palette));
    let left_out = order.len() - rows.len();
    let text = (left_out > 0).then(|| format!("and {}", count(left_out, "more tenant")));
    draw_lines(frame, rest, text.into_iter().map(|text| palette.span(Role::Faint, text).into()).collect())
}

/// What is listed, in words.
fn listed(screen: &Screen, palette: Palette) -> Vec<Line<'_>> {
    let sort = screen.sort();
    let order = if sort.is_reversed { ", the smallest first" } else { "" };
    let by = format!("by {}{order}", sort.key.name());
    match screen.level() {
        Level::SubTenants => {
            let all = screen.shown().map_or(0, |shown| shown.sub_tenants.len());
            let mut text = match screen.filter() {
                "" => count(all, "sub-tenant"),
                filter => format!("{} of {} with {filter:?}", screen.sub_tenants().count(), count(all, "sub-tenant")),
            };
            text = format!("{text}, {by}");
            vec![palette.span(Role::Faint, text).into()]
        }
        Level::Workers(key) => {
            let name = palette.span(Role::Title, format!("{} {}", key.tenant, key.hash));
            let Some(row) = screen.opened() else {
                return vec![vec![name, palette.span(Role::Warning, "  is not there any more")].into()];
            };
            let words = palette.span(Role::Faint, format!("  {}, {by}", count(screen.workers().count(), "worker")));
            vec![vec![name, words].into(), since_start(row).into()]
        }
    }
}

/// Where a sub-tenant's CPU time went.
fn since_start(row: &SubTenantRow) -> String {
    let usage = &row.figures.usage;
    let spent = |part| time(wire(part).unwrap_or_default());
    let class = if row.class.is_empty() { String::new() } else { format!("class {}  ", row.class) };
    format!(
        "{class}cpu {}  memory {}  cpu time: calls {}  idle {}  starting {}  throttled {}",
        cores(row.figures.cpu_cores()),
        memory(row.figures.memory_bytes),
        spent(usage.cpu_calls),
        spent(usage.cpu_idle),
        spent(usage.cpu_starting),
        spent(usage.throttled)
    )
}

fn draw_rows<R: Ranked>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column<R>],
    rows: &[&R],
    marked: Option<usize>,
    (screen, palette): (&Screen, Palette),
) {
    let room = usize::from(area.height.saturating_sub(1));
    // The marked row in the middle, as far as there are rows on both sides.
    let first = marked.unwrap_or(0).saturating_sub(room / 2).min(rows.len().saturating_sub(room));
    let visible: Vec<&R> = rows.iter().skip(first).take(room).copied().collect();
    let fitting = fit(columns, &visible, area.width, screen.sort().key);
    let align = |column: &Column<R>, text: Text<'static>| {
        Cell::from(if column.is_number { text.right_aligned() } else { text })
    };
    let header = fitting.iter().map(|(column, _)| {
        let role = if column.key == Some(screen.sort().key) { Role::Sorted } else { Role::Header };
        align(column, column.title.into()).style(palette.style(role))
    });
    let stale = if screen.trouble().is_some() { Role::Faint } else { Role::Plain };
    let body = visible.iter().enumerate().map(|(at, row)| {
        let cells = fitting
            .iter()
            .map(|(column, _)| align(column, column.cell(row).into()).style(palette.style(worry(column.key, *row))));
        let role = if marked == Some(first + at) { Role::Marked } else { stale };
        Row::new(cells).style(palette.style(role))
    });
    let widths = fitting.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(body, widths).header(Row::new(header)).column_spacing(GAP);
    frame.render_widget(table, area);
}

/// How a number looks that asks for attention.
fn worry<R: Ranked>(column: Option<SortKey>, row: &R) -> Role {
    let figures = row.figures();
    let rate = |of: fn(&Rates) -> f64| figures.rates.as_ref().is_some_and(|rates| of(rates) > 0.0);
    match column {
        Some(SortKey::Faults) if rate(|rates| rates.faults) => Role::Bad,
        Some(SortKey::Throttled) if rate(|rates| rates.throttled) => Role::Warning,
        Some(SortKey::Queue) if figures.queued > 0 => Role::Warning,
        Some(_) | None => Role::Plain,
    }
}

/// What keys do now.
fn keys(screen: &Screen, palette: Palette) -> Line<'_> {
    if screen.is_typing() {
        let typed = palette.span(Role::Title, format!("filter: {}_", screen.filter()));
        return vec![typed, palette.span(Role::Faint, "  enter keeps it  esc clears it")].into();
    }
    let pause = if screen.is_paused() { "p go on" } else { "p pause" };
    let text = match screen.level() {
        Level::SubTenants if screen.filter().is_empty() => {
            format!("q quit  enter workers  j/k move  s/S sort  r reverse  / filter  {pause}")
        }
        Level::SubTenants => {
            format!("q quit  esc clear filter  enter workers  j/k move  s/S sort  r reverse  / filter  {pause}")
        }
        Level::Workers(_) => format!("q quit  esc back  j/k move  s/S sort  r reverse  {pause}"),
    };
    palette.span(Role::Faint, text).into()
}

#[cfg(test)]
mod tests;
