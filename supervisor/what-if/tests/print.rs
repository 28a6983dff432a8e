//! What comes out: a table for people, JSON for others.
#![allow(missing_docs, reason = "tests are named as rules")]

use sublet_what_if::{Cells, Comparison, Delay, Delays, Level, Report, Starts, SubTenantDelay};

fn report(calls: u64, starts: Starts, max_us: u64) -> Report {
    let delay = Delay { count: calls, p50_us: 400, p99_us: 1500, p999_us: max_us, max_us };
    Report {
        calls,
        answered: calls,
        starts,
        delays: Delays { all: delay, warm: delay, ..Delays::default() },
        workers: Level { peak: 2, average: 1.5 },
        memory_bytes: Level { peak: 3 << 30, average: 1.5 * 1048576.0 },
        ..Report::default()
    }
}

#[test]
fn table_is_aligned_and_says_what_changed() {
    let before = report(1_234_567, Starts { cold: 1, cell: 0, warm: 3 }, 2_500_000);
    let mut after = report(1_234_567, Starts { cold: 0, cell: 1, warm: 3 }, 1_250_000);
    after.errors = 12;
    let before = Report { errors: 1, ..before };
    after.cells = Cells { made: 2, used: 1, wasted: 1 };
    after.worst = vec![SubTenantDelay { tenant: "acme".into(), sub_tenant: "9f3c".into(), calls: 4, mean_us: 2500 }];
    let expected = "
                    before      after         change
calls            1 234 567  1 234 567
answered         1 234 567  1 234 567
  with an error          1         12           x 12
refused                  0          0
deadline passed          0          0
cold starts        25.00 %     0.00 %  -25.00 points
cell starts         0.00 %    25.00 %  +25.00 points
warm starts        75.00 %    75.00 %
delay p50           400 us     400 us
delay p99          1.50 ms    1.50 ms
delay p99.9         2.50 s     1.25 s        -50.0 %
delay max           2.50 s     1.25 s        -50.0 %
  warm p50          400 us     400 us
  warm p99         1.50 ms    1.50 ms
  warm p99.9        2.50 s     1.25 s        -50.0 %
  warm max          2.50 s     1.25 s        -50.0 %
workers peak             2          2
workers average        1.5        1.5
memory peak        3.0 GiB    3.0 GiB
memory average     1.5 MiB    1.5 MiB
workers ended            0          0
cells made               0          2            new
  used                   0          1            new
  wasted                 0          1            new

sub-tenants with the longest mean delay, after
     2.50 ms in 4 calls: acme 9f3c
";
    assert_eq!(format!("\n{}", Comparison { before, after }), expected);
}

#[test]
fn one_report_is_a_table_of_its_own() {
    let text = report(5, Starts { cold: 1, cell: 0, warm: 4 }, 10).to_string();
    assert!(text.starts_with("calls                  5\nanswered               5\n"), "{text}");
}

#[test]
fn comparison_is_json_under_the_names_of_its_fields() {
    let report = report(5, Starts { cold: 1, cell: 0, warm: 4 }, 10);
    let json = serde_json::to_value(Comparison { before: report.clone(), after: report }).expect("it is plain");
    assert_eq!(json["before"]["starts"]["cold"], 1);
    assert_eq!(json["after"]["delays"]["warm"]["p999_us"], 10);
    assert_eq!(json["after"]["refused"]["queue_full"], 0);
    assert_eq!(json["after"]["workers"]["average"], 1.5);
}
