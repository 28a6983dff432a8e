use crossterm::event::KeyEventState;
use sublet_proto::v1::WorkerState;

use super::*;
use crate::cli::top::fixture::{at, sub_tenant, used, worker};

/// Three sub-tenants that have used CPU time at these rates, in thousandths of a processor.
fn sample(seconds: u64, rates: [(&str, u64); 3]) -> Sample {
    let each = rates.into_iter().map(|(hash, rate)| {
        let usage = used(seconds * rate, seconds);
        let mut seen = sub_tenant("acme", hash, usage);
        seen.workers_used =
            vec![worker("w-1", WorkerState::Idle, used(seconds, 0)), worker("w-2", WorkerState::Leased, usage)];
        seen
    });
    at(seconds, each.collect())
}

const RATES: [(&str, u64); 3] = [("s-a", 300), ("s-b", 200), ("s-c", 100)];

fn screen() -> Screen {
    let mut screen = Screen::new(SortKey::Cpu, "");
    screen.take(sample(1, RATES));
    screen.take(sample(2, RATES));
    screen
}

fn press(screen: &mut Screen, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(screen.press(KeyEvent::from(*code)), Next::Draw);
    }
}

fn type_in(screen: &mut Screen, text: &str) {
    text.chars().for_each(|c| press(screen, &[KeyCode::Char(c)]));
}

fn hashes(screen: &Screen) -> Vec<&str> {
    screen.sub_tenants().map(|row| row.key.hash.as_str()).collect()
}

fn workers(screen: &Screen) -> Vec<&str> {
    screen.workers().map(|row| row.seen.worker.as_str()).collect()
}

#[test]
fn q_and_control_c_quit_and_nothing_else_does() {
    let mut screen = screen();
    assert_eq!(screen.press(KeyEvent::from(KeyCode::Char('q'))), Next::Quit);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(screen.press(control('c')), Next::Quit);
    assert_eq!(screen.press(control('q')), Next::Draw);
    press(&mut screen, &[KeyCode::Esc, KeyCode::Char('x'), KeyCode::F(1), KeyCode::Left]);
    press(&mut screen, &[KeyCode::Char('/'), KeyCode::Char('q')]);
    assert_eq!(screen.filter(), "q", "while a filter is typed it is a letter");
    assert_eq!(screen.press(control('c')), Next::Quit, "and this is not");
}

#[test]
fn released_keys_do_nothing() {
    let mut screen = screen();
    let released =
        KeyEvent { kind: KeyEventKind::Release, state: KeyEventState::NONE, ..KeyEvent::from(KeyCode::Char('q')) };
    assert_eq!(screen.press(released), Next::Draw);
}

#[test]
fn keys_move_the_mark_within_the_rows() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Up]);
    assert_eq!(screen.marked(), 0);
    press(&mut screen, &[KeyCode::Char('j'), KeyCode::Down, KeyCode::Down, KeyCode::Down]);
    assert_eq!(screen.marked(), 2);
    press(&mut screen, &[KeyCode::Char('k')]);
    assert_eq!(screen.marked(), 1);
    press(&mut screen, &[KeyCode::PageDown]);
    assert_eq!(screen.marked(), 2);
    press(&mut screen, &[KeyCode::Home]);
    assert_eq!(screen.marked(), 0);
    press(&mut screen, &[KeyCode::End, KeyCode::PageUp]);
    assert_eq!(screen.marked(), 0);
}

#[test]
fn marked_row_is_opened_wherever_the_order_has_brought_it() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Down]);
    screen.take(sample(3, [("s-a", 300), ("s-b", 900), ("s-c", 400)]));
    assert_eq!(hashes(&screen), ["s-b", "s-c", "s-a"]);
    assert_eq!(screen.marked(), 0);
    press(&mut screen, &[KeyCode::Enter]);
    assert_eq!(screen.opened().expect("it is there").key.hash, "s-b");
}

#[test]
fn enter_opens_the_workers_and_esc_goes_back_to_the_row() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(workers(&screen), ["w-2", "w-1"], "by cpu");
    assert_eq!(hashes(&screen), Vec::<&str>::new());
    press(&mut screen, &[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(screen.marked(), 1, "there is nothing in a worker to open");
    press(&mut screen, &[KeyCode::Char('r')]);
    assert_eq!(workers(&screen), ["w-1", "w-2"]);
    assert_eq!(screen.marked(), 0, "the mark follows its worker");
    press(&mut screen, &[KeyCode::Char('r'), KeyCode::Esc]);
    assert_eq!((hashes(&screen).len(), screen.marked()), (3, 1));
    assert_eq!(workers(&screen), Vec::<&str>::new());
}

#[test]
fn esc_and_a_key_soon_after_are_two_keys() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Enter]);
    screen.press(KeyEvent::new(KeyCode::Char('r'), KeyModifiers::ALT));
    assert_eq!(screen.level(), &Level::SubTenants);
    assert_eq!(hashes(&screen), ["s-c", "s-b", "s-a"]);
}

#[test]
fn opened_sub_tenant_that_is_gone_leaves_an_empty_list_and_may_come_back() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Enter]);
    screen.take(at(3, vec![]));
    assert!(screen.opened().is_none());
    assert_eq!(workers(&screen), Vec::<&str>::new());
    press(&mut screen, &[KeyCode::Down, KeyCode::End]);
    screen.take(sample(4, RATES));
    assert_eq!(workers(&screen).len(), 2);
    screen.take(at(5, vec![]));
    press(&mut screen, &[KeyCode::Esc, KeyCode::Enter]);
    assert_eq!(screen.level(), &Level::SubTenants, "nothing to open");
}

#[test]
fn s_goes_through_the_keys_of_its_level() {
    let mut screen = screen();
    let mut seen = Vec::new();
    for _ in SortKey::ALL {
        seen.push(screen.sort().key);
        press(&mut screen, &[KeyCode::Char('s')]);
    }
    assert_eq!(seen, SortKey::ALL);
    assert_eq!(screen.sort().key, SortKey::Cpu, "round");
    press(&mut screen, &[KeyCode::Char('S')]);
    assert_eq!(screen.sort().key, SortKey::Throttled);
    press(&mut screen, &[KeyCode::Enter]);
    for _ in SortKey::ALL {
        press(&mut screen, &[KeyCode::Char('s')]);
        assert_ne!(screen.sort().key, SortKey::Queue, "calls do not wait at workers");
    }
}

#[test]
fn filter_is_typed_kept_and_cleared() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Char('/')]);
    type_in(&mut screen, "s-cc");
    assert!(screen.is_typing());
    assert_eq!(hashes(&screen), Vec::<&str>::new());
    press(&mut screen, &[KeyCode::Backspace]);
    assert_eq!(hashes(&screen), ["s-c"], "while it is typed");
    press(&mut screen, &[KeyCode::Enter]);
    assert_eq!((screen.is_typing(), screen.filter()), (false, "s-c"));
    screen.take(sample(3, RATES));
    assert_eq!(hashes(&screen), ["s-c"], "and after the next sample");
    press(&mut screen, &[KeyCode::Enter]);
    assert_eq!(screen.opened().expect("it is there").key.hash, "s-c");
    press(&mut screen, &[KeyCode::Char('/')]);
    assert!(!screen.is_typing(), "workers have no filter");
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!(screen.filter(), "s-c", "back is not clear");
    press(&mut screen, &[KeyCode::Esc]);
    assert_eq!((screen.filter(), hashes(&screen).len()), ("", 3));
    press(&mut screen, &[KeyCode::Char('/'), KeyCode::Char('x'), KeyCode::Esc]);
    assert_eq!((screen.is_typing(), screen.filter()), (false, ""));
}

#[test]
fn filter_has_a_limit() {
    let mut screen = Screen::new(SortKey::Cpu, &"x".repeat(FILTER_MAX_CHARS + 1));
    assert_eq!(screen.filter().len(), FILTER_MAX_CHARS);
    press(&mut screen, &[KeyCode::Char('/'), KeyCode::Backspace]);
    type_in(&mut screen, "yz");
    assert_eq!(screen.filter().len(), FILTER_MAX_CHARS);
    assert!(screen.filter().ends_with('y'));
}

#[test]
fn paused_numbers_stand_still_and_can_be_sorted_and_opened() {
    let mut screen = screen();
    press(&mut screen, &[KeyCode::Char('p')]);
    screen.take(sample(3, [("s-a", 0), ("s-b", 0), ("s-c", 9_000)]));
    assert_eq!(hashes(&screen), ["s-a", "s-b", "s-c"]);
    press(&mut screen, &[KeyCode::Char('r')]);
    assert_eq!(hashes(&screen), ["s-c", "s-b", "s-a"]);
    press(&mut screen, &[KeyCode::Enter]);
    assert_eq!(workers(&screen).len(), 2);
    press(&mut screen, &[KeyCode::Esc, KeyCode::Char('r'), KeyCode::Char('p')]);
    screen.take(sample(4, [("s-a", 0), ("s-b", 0), ("s-c", 9_000)]));
    assert_eq!(hashes(&screen)[0], "s-c");
    let interval = screen.shown().and_then(|shown| shown.interval);
    assert_eq!(interval, Some(std::time::Duration::from_secs(1)), "the pause is not part of a rate");
}

#[test]
fn first_sample_is_shown_even_when_paused() {
    let mut screen = Screen::new(SortKey::Cpu, "");
    press(&mut screen, &[KeyCode::Char('p')]);
    screen.take(sample(1, RATES));
    assert_eq!(hashes(&screen).len(), 3);
}

#[test]
fn failure_leaves_the_numbers_and_no_rate_is_made_across_it() {
    let mut screen = screen();
    screen.fail("no supervisor is there".to_owned());
    assert_eq!(screen.trouble(), Some("no supervisor is there"));
    assert_eq!(hashes(&screen).len(), 3);
    screen.take(sample(9, RATES));
    assert_eq!(screen.trouble(), None);
    assert!(screen.sub_tenants().all(|row| row.figures.rates.is_none()));
    screen.take(sample(10, RATES));
    assert!(screen.sub_tenants().all(|row| row.figures.rates.is_some()));
}
