use sublet_proto::v1::{Usage, WorkerState};

use super::*;
use crate::cli::top::model::{Figures, Key};

fn titles(width: u16, sorted_by: SortKey) -> Vec<&'static str> {
    fit(&SUB_TENANTS, &[], width, sorted_by).into_iter().map(|(column, _)| column.title).collect()
}

fn rates(of: f64) -> Option<Rates> {
    Some(Rates { cpu_cores: of, calls: of, faults: of, throttled: of })
}

#[test]
fn all_columns_are_there_where_there_is_room() {
    assert_eq!(titles(u16::MAX, SortKey::Cpu).len(), SUB_TENANTS.len());
}

#[test]
fn eighty_columns_have_what_top_is_for() {
    let expected = ["TENANT", "SUB-TENANT", "CPU", "MEMORY", "CALLS/S", "QUEUED", "FAULTS/S", "THROTTLED"];
    assert_eq!(titles(80, SortKey::Cpu), expected);
}

#[test]
fn sub_tenant_cpu_and_what_is_sorted_by_are_never_left_out() {
    assert_eq!(titles(0, SortKey::Cpu), ["SUB-TENANT", "CPU"]);
    for key in SortKey::ALL {
        let left = fit(&SUB_TENANTS, &[], 0, key);
        assert!(left.iter().any(|(column, _)| column.key == Some(key)), "{key:?}");
    }
}

#[test]
fn columns_fit_into_every_width_that_has_room_for_two() {
    let row = SubTenantRow {
        key: Key { tenant: "a-tenant-with-a-long-name".to_owned(), hash: "s-".repeat(17) },
        class: "a-class-with-a-long-name".to_owned(),
        ..SubTenantRow::default()
    };
    for width in 21..300 {
        let fitting = fit(&SUB_TENANTS, &[&row], width, SortKey::Cpu);
        let needed = fitting.iter().map(|(_, width)| width + GAP).sum::<u16>() - GAP;
        assert!(needed <= width, "{needed} of {width}");
    }
    let widest = fit(&SUB_TENANTS, &[&row], 300, SortKey::Cpu);
    assert_eq!(widest.iter().map(|(_, width)| *width).take(3).collect::<Vec<_>>(), [25, 34, 24]);
}

#[test]
fn numbers_are_as_exact_as_they_are_useful() {
    assert_eq!((cores(Some(0.016)), cores(None)), ("0.02".to_owned(), "-".to_owned()));
    let calls = |of| per_second(rates(of), |rates| rates.calls);
    assert_eq!((calls(0.25), calls(999.9), calls(12_345.6)), ("0.2".into(), "999.9".into(), "12346".into()));
    assert_eq!(per_second(None, |rates| rates.calls), "-");
    assert_eq!((share(rates(0.385)), share(rates(3.5)), share(None)), ("38%".into(), "350%".into(), "-".into()));
}

#[test]
fn large_numbers_are_not_wider_than_their_columns() {
    const YEAR_SECONDS: i64 = 365 * 24 * 3600;
    let spent = Some(prost_types::Duration { seconds: YEAR_SECONDS / 6, nanos: 0 });
    let (calls_answered, calls_failed) = (400_000_000_000, 400_000_000_000);
    let figures = Figures {
        rates: rates(960.0),
        memory_bytes: 9 << 40,
        processes: 99_999,
        running: 99_999,
        queued: 99_999,
        usage: Usage { cpu_kernel: spent, calls_answered, calls_failed, ..Usage::default() },
    };
    fn check<R>(columns: &[Column<R>], row: &R) {
        for column in columns.iter().filter(|column| column.is_number) {
            let text = column.cell(row);
            assert!(text.chars().count() <= usize::from(column.width), "{}: {text}", column.title);
        }
    }
    check(&TENANTS, &TenantRow { figures: figures.clone(), ..TenantRow::default() });
    let seen = sublet_proto::v1::WorkerUsage { memory_peak_bytes: 9 << 40, ..Default::default() };
    check(&WORKERS, &WorkerRow { seen, figures: figures.clone() });
    check(&SUB_TENANTS, &SubTenantRow { workers: 99_999, frozen: 99_999, figures, ..SubTenantRow::default() });
    assert_eq!((memory((1 << 30) - 1), memory(3 << 29)), ("1024.0MiB".to_owned(), "1.5GiB".to_owned()));
    assert_eq!((total(9_999_999), total(10_000_000)), ("9999999".to_owned(), "10M".to_owned()));
}

#[test]
fn frozen_worker_is_told_from_an_idle_one() {
    let state_of = |seen: WorkerState, frozen| {
        let mut row = WorkerRow::default();
        row.seen.state = seen.into();
        row.seen.frozen = frozen;
        state(&row)
    };
    assert_eq!(state_of(WorkerState::Idle, true), "frozen");
    assert_eq!(state_of(WorkerState::Idle, false), "idle");
    assert_eq!(state_of(WorkerState::Leased, false), "busy");
    assert_eq!(state_of(WorkerState::Unspecified, false), "?");
}
