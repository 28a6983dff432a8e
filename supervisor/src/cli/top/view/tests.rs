use crossterm::event::{KeyCode, KeyEvent};
use ratatui::{Terminal, backend::TestBackend, style::Color};
use sublet_proto::v1::{SubTenantUsage, Usage, WorkerState};

use super::*;
use crate::cli::top::{
    fixture::{at, millis, sub_tenant, used, worker},
    model::Sample,
    screen::FILTER_MAX_CHARS,
};

/// What a terminal of this size shows, line by line.
fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a size is enough");
    terminal.draw(|frame| draw(frame, screen, Palette::new(true))).expect("nothing to fail on");
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn press(screen: &mut Screen, text: &str) {
    for c in text.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            c => KeyCode::Char(c),
        };
        screen.press(KeyEvent::from(code));
    }
}

fn sample(seconds: u64) -> Sample {
    let ada = Usage {
        cpu_calls: millis(seconds * 1_200),
        calls_refused: seconds,
        throttled: millis(seconds * 100),
        ..used(seconds * 1_250, seconds * 20)
    };
    let ada = SubTenantUsage {
        class: "gold".to_owned(),
        workers: 2,
        frozen: 1,
        calls_running: 1,
        calls_queued: 3,
        workers_used: vec![
            worker("w-1", WorkerState::Leased, used(seconds * 1_250, seconds * 20)),
            worker("w-2", WorkerState::Idle, used(20, 2)),
        ],
        ..sub_tenant("acme", "s-85490a20d1470000", ada)
    };
    at(seconds, vec![sub_tenant("globex", "s-a0b53b783df50000", used(seconds * 10, seconds)), ada])
}

fn screen() -> Screen {
    let mut screen = Screen::new(SortKey::Cpu, "");
    screen.take(sample(1));
    screen.take(sample(2));
    screen
}

#[test]
fn sub_tenants_are_listed_below_supervisor_and_tenants() {
    let lines = drawn(&screen(), 100, 14);
    assert_eq!(
        lines,
        [
            "sublet serving  cpu 1.26 cores  workers 3  cells 1  in flight 2  queued 0",
            "TENANT      CPU    MEMORY PROCS CALLS/S RUNNING QUEUED FAULTS/S THROTTLED",
            "acme       1.25    1.0MiB     0    20.0       1      3      0.0        0%",
            "globex     0.01    1.0MiB     0     1.0       0      0      0.0        0%",
            "2 sub-tenants, by cpu",
            "TENANT   SUB-TENANT       WORKERS    CPU    MEMORY CALLS/S RUNNING QUEUED FAULTS/S  FAULTS THROTTLED",
            "acme     s-85490a20d14700       2   1.25    1.0MiB    20.0       1      3      1.0       2       10%",
            "globex   s-a0b53b783df500       0   0.01    1.0MiB     1.0       0      0      0.0       0        0%",
            "",
            "",
            "",
            "",
            "",
            "q quit  enter workers  j/k move  s/S sort  r reverse  / filter  p pause",
        ]
    );
}

#[test]
fn workers_are_listed_below_their_sub_tenant() {
    let mut screen = screen();
    press(&mut screen, "\n");
    let lines = drawn(&screen, 110, 9);
    assert_eq!(
        lines,
        [
            "sublet serving  cpu 1.26 cores  workers 3  cells 1  in flight 2  queued 0",
            "acme s-85490a20d1470000  2 workers, by cpu",
            "class gold  cpu 1.25  memory 1.0MiB  cpu time: calls 2.4s  idle 0us  starting 0us  throttled 200.0ms",
            "WORKER FUNCTION STATE       CPU  CPU TIME    MEMORY      PEAK PROCS CALLS/S   CALLS  FAULTS THROTTLED",
            "w-1    greet    busy       1.25      2.5s  512.0KiB  768.0KiB     2    20.0      40       0        0%",
            "w-2    greet    idle       0.00    20.0ms  512.0KiB  768.0KiB     2     0.0       2       0        0%",
            "",
            "",
            "q quit  esc back  j/k move  s/S sort  r reverse  p pause",
        ]
    );
}

#[test]
fn tiny_terminal_still_lists_the_first() {
    let lines = drawn(&screen(), 20, 5);
    assert_eq!(
        lines,
        [
            "sublet serving  cpu",
            "SUB-TENANT       CPU",
            "s-85490a20d14   1.25",
            "s-a0b53b783df   0.01",
            "q quit  enter worker"
        ]
    );
    let mut screen = screen();
    press(&mut screen, "\n");
    assert_eq!(drawn(&screen, 20, 5)[1..4], ["WORKER    CPU", "w-1      1.25", "w-2      0.00"]);
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut failed = screen();
    failed.fail("no supervisor is there; start one".to_owned());
    let mut opened = screen();
    press(&mut opened, "\n");
    for screen in [Screen::new(SortKey::Cpu, ""), screen(), failed, opened] {
        for (width, height) in (0..14).flat_map(|height| [0, 1, 2, 7, 20, 80].map(|width| (width, height))) {
            assert_eq!(drawn(&screen, width, height).len(), usize::from(height));
        }
        drawn(&screen, 1_000, 100);
    }
}

#[test]
fn before_the_first_answer_the_supervisor_is_being_asked() {
    let mut screen = Screen::new(SortKey::Cpu, "");
    assert_eq!(drawn(&screen, 60, 8)[0], "sublet asking the supervisor");
    screen.fail("connect to /run/sublet/admin.sock: not found".to_owned());
    let lines = drawn(&screen, 60, 8);
    assert_eq!(lines[0], "sublet no answer, asking again");
    assert_eq!(lines[1], "connect to /run/sublet/admin.sock: not found");
}

#[test]
fn supervisor_without_sub_tenants_says_so() {
    let mut screen = Screen::new(SortKey::Cpu, "");
    screen.take(at(1, vec![]));
    let lines = drawn(&screen, 60, 14);
    assert_eq!(lines[0], "sublet serving  cpu - cores  workers 3  cells 1  in flight 2");
    assert_eq!(lines[1], "0 sub-tenants, by cpu");
}

#[test]
fn trouble_is_told_above_the_numbers_that_were() {
    let mut screen = screen();
    screen.fail("connect to /run/x: connection refused; no supervisor is there; start one".to_owned());
    let lines = drawn(&screen, 100, 16);
    assert!(lines[0].starts_with("sublet no answer, asking again serving  cpu 1.26 cores"), "{}", lines[0]);
    assert_eq!(lines[1..4], ["connect to /run/x: connection refused", "no supervisor is there", "start one"]);
    assert!(lines.iter().any(|line| line.starts_with("acme     s-85490a20d1")));
    screen.take(sample(5));
    assert!(drawn(&screen, 100, 16)[0].starts_with("sublet serving"));
}

#[test]
fn what_the_host_does_not_enforce_and_a_drain_are_told() {
    let mut draining = sample(3);
    draining.health.status = "draining".to_owned();
    draining.health.degraded = vec!["swap".to_owned(), "landlock".to_owned()];
    let mut screen = screen();
    screen.take(draining);
    let lines = drawn(&screen, 60, 10);
    assert!(lines[0].starts_with("sublet draining"));
    assert_eq!(lines[1], "not enforced: swap, landlock");
}

#[test]
fn tenants_beyond_the_room_are_counted() {
    let tenants = |seconds| {
        at(seconds, (0..9).map(|n| sub_tenant(&format!("t-{n}"), "s-1", used(seconds * (9 - n), 0))).collect())
    };
    let mut screen = Screen::new(SortKey::Cpu, "");
    screen.take(tenants(1));
    screen.take(tenants(2));
    let lines = drawn(&screen, 80, 24);
    assert!(lines[2].starts_with("t-0") && lines[4].starts_with("t-2"));
    assert_eq!(lines[5], "and 6 more tenants");
}

#[test]
fn marked_row_is_always_among_those_drawn() {
    let mut screen = Screen::new(SortKey::Queue, "");
    screen.take(at(1, (0..100).map(|n| sub_tenant("acme", &format!("s-{n:02}"), used(0, 0))).collect()));
    for marked in 0..100 {
        let lines = drawn(&screen, 40, 10);
        let row = format!("s-{marked:02} ");
        assert!(lines.iter().any(|line| line.contains(&row)), "row {marked} in {lines:?}");
        press(&mut screen, "j");
    }
}

#[test]
fn filter_and_pause_and_order_are_told() {
    let mut screen = screen();
    press(&mut screen, "/gol");
    let lines = drawn(&screen, 100, 10);
    assert_eq!(lines[1], "1 of 2 sub-tenants with \"gol\", by cpu");
    assert_eq!(lines[9], "filter: gol_  enter keeps it  esc clears it");
    press(&mut screen, "\nprs");
    let lines = drawn(&screen, 100, 10);
    assert!(lines[0].starts_with("sublet PAUSED serving"));
    assert_eq!(lines[1], "1 of 2 sub-tenants with \"gol\", by memory, the smallest first");
    assert!(lines[9].starts_with("q quit  esc clear filter") && lines[9].ends_with("p go on"));
    press(&mut screen, "/");
    press(&mut screen, &"x".repeat(2 * FILTER_MAX_CHARS));
    assert!(drawn(&screen, 100, 10)[9].starts_with("filter: golxxx"));
}

#[test]
fn opened_sub_tenant_that_is_gone_is_told() {
    let mut screen = screen();
    press(&mut screen, "\n");
    screen.take(at(3, vec![]));
    assert_eq!(drawn(&screen, 80, 8)[1], "acme s-85490a20d1470000  is not there any more");
}

#[test]
fn text_from_outside_cannot_command_the_terminal() {
    let mut screen = Screen::new(SortKey::Cpu, "");
    screen.take(at(1, vec![sub_tenant("a\x1b[2Jb\n", "s-1", used(0, 0))]));
    screen.fail("\x1b]0;title\x07 bell".to_owned());
    assert!(drawn(&screen, 80, 14).iter().all(|line| !line.contains(|c: char| c.is_control())));
}

#[test]
fn nothing_is_coloured_where_no_colour_is_wanted() {
    let mut screen = screen();
    let colours = |screen: &Screen, palette| {
        let mut terminal = Terminal::new(TestBackend::new(100, 14)).expect("a size is enough");
        terminal.draw(|frame| draw(frame, screen, palette)).expect("nothing to fail on");
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(&screen, Palette::new(true)) > 0, "or the rest proves nothing");
    assert_eq!(colours(&screen, Palette::new(false)), 0);
    screen.fail("trouble".to_owned());
    assert_eq!(colours(&screen, Palette::new(false)), 0);
}
