use std::io::{BufReader, Read};

use super::*;

const GOOD: &str = "0,acme,resize,9f3c,1500,ok";

fn read(text: &[u8]) -> Result<Vec<Row>, TraceError> {
    Reader::new(text)?.collect()
}

/// Reads a trace of one good row and this one, which is line 3.
fn refused(row: impl AsRef<[u8]>) -> TraceError {
    let text = [HEADER.as_bytes(), b"\n", GOOD.as_bytes(), b"\n", row.as_ref(), b"\n"].concat();
    read(&text).expect_err("the row is broken")
}

fn row(at_us: u64, sub_tenant: &str) -> Row {
    let token = |text| Token::try_from(text).expect(text);
    Row {
        at_us,
        tenant: token("acme"),
        function: token("resize"),
        sub_tenant: token(sub_tenant),
        service_us: 1500,
        outcome: Outcome::Ok,
    }
}

#[test]
fn what_is_written_is_read() {
    let mut all = vec![row(0, "9f3c"), row(0, ""), row(TIME_MAX_US, &"f".repeat(64))];
    all[1].outcome = Outcome::Error;
    all[2].outcome = Outcome::Crash;
    all[2].service_us = TIME_MAX_US;
    let mut writer = Writer::new(Vec::new()).expect("memory takes everything");
    all.iter().for_each(|row| writer.write(row).expect("memory takes everything"));
    let text = writer.finish().expect("memory takes everything");
    assert!(text.starts_with(format!("{HEADER}\n{GOOD}\n").as_bytes()));
    assert_eq!(read(&text).expect("it is right"), all);
    // Whether the last row has its line feed or not.
    assert_eq!(read(&text[..text.len() - 1]).expect("it is right"), all);
}

#[test]
fn lines_are_read_across_the_edges_of_the_buffer() {
    let text = format!("{HEADER}\n{GOOD}\n{GOOD}\n");
    for size in 1..80 {
        let rows: Result<Vec<Row>, _> =
            Reader::new(BufReader::with_capacity(size, text.as_bytes())).expect("it is right").collect();
        assert_eq!(rows.expect("it is right"), [row(0, "9f3c"); 2], "{size}");
    }
}

#[test]
fn trace_without_its_header_is_refused() {
    assert!(matches!(read(b""), Err(TraceError::Empty)));
    let crlf = format!("{HEADER}\r\n");
    let bom = format!("\u{feff}{HEADER}\n");
    let missing = format!("{GOOD}\n");
    for text in ["\n", "at_us\n", &crlf, &bom, &missing, " "] {
        let error = read(text.as_bytes()).expect_err(text);
        assert!(matches!(error, TraceError::Header { .. }), "{error:?}");
        assert!(error.to_string().contains(HEADER), "{error}");
    }
}

#[test]
fn broken_row_is_told_with_line_column_value_and_remedy() {
    let long = format!("5,acme,resize,{},1,ok", "f".repeat(65));
    for (row, told) in [
        ("", "line 3: \"\" has 1 columns and not 6; write "),
        ("5,acme,resize,9f3c,1", "has 5 columns and not 6"),
        ("5,acme,resize,9f3c,1,ok,", "has 7 columns and not 6"),
        ("five,acme,resize,9f3c,1,ok", "line 3, column at_us: \"five\" is not a number; write whole microseconds"),
        (",acme,resize,9f3c,1,ok", "column at_us: \"\" is not a number"),
        ("+5,acme,resize,9f3c,1,ok", "column at_us: \"+5\" is not a number"),
        ("5,acme,resize,9f3c,-1,ok", "column service_us: \"-1\" is not a number"),
        ("5,acme,resize,9f3c,1.5,ok", "column service_us: \"1.5\" is not a number"),
        ("18446744073709551616,acme,resize,9f3c,1,ok", "column at_us: 18446744073709551616 is above 315360000000000"),
        ("5,acme,resize,9f3c,315360000000001,ok", "column service_us: 315360000000001 is above 315360000000000"),
        ("5,,resize,9f3c,1,ok", "line 3, column tenant: \"\" is no name; every call has a tenant and a function"),
        ("5,acme,,9f3c,1,ok", "line 3, column function: \"\" is no name"),
        ("5,acme,resize,\"9f3c\",1,ok", "column sub_tenant: \"\\\"9f3c\\\"\" contains '\"'; commas, quotes"),
        ("5,ac\tme,resize,9f3c,1,ok", "column tenant: \"ac\\tme\" contains '\\t'"),
        (&long, "has 65 bytes, at most 64 are allowed; write a name, or a hash"),
        ("5,acme,resize,9f3c,1,OK", "line 3, column outcome: \"OK\" is not known; write ok, error or crash"),
        ("5,acme,resize,9f3c,1,o", "column outcome: \"o\" is not known"),
        ("5,acme,resize,9f3c,1,ok\r", "column outcome: \"ok\\r\" is not known"),
    ] {
        let error = refused(row).to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn time_does_not_go_backwards() {
    let text = format!("{HEADER}\n7,acme,f,a,1,ok\n7,acme,f,a,1,ok\n6,acme,f,a,1,ok\n");
    let error = read(text.as_bytes()).expect_err("the third is before the second");
    assert!(matches!(error, TraceError::Backwards { line: 4, value: 6, before: 7 }), "{error:?}");
    assert!(error.to_string().contains("sort the rows"), "{error}");
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_column() {
    let error = refused(b"5,acme,re\xffsize,9f3c,1,ok");
    assert!(matches!(error, TraceError::Utf8 { line: 3, column: "function", at: 9, .. }), "{error:?}");
    assert!(error.to_string().contains("re\u{fffd}size"), "{error}");
}

#[test]
fn line_of_the_greatest_length_is_read_and_one_longer_is_refused() {
    // A row cannot be as long; what is wrong with it is told, and not its length.
    let longest = "x".repeat(LINE_MAX_BYTES);
    assert!(matches!(refused(&longest), TraceError::Columns { line: 3, .. }));
    assert!(matches!(refused(format!("{longest}x")), TraceError::LineTooLong { line: 3, .. }));
}

#[test]
fn endless_line_is_refused_before_it_is_kept() {
    let error = Reader::new(BufReader::new(std::io::repeat(b'x'))).err();
    assert!(matches!(error, Some(TraceError::LineTooLong { line: 1, .. })), "{error:?}");
}

#[test]
fn nothing_comes_after_a_broken_row() {
    let text = format!("{HEADER}\n{GOOD}\nbroken\n{GOOD}\n");
    let mut reader = Reader::new(text.as_bytes()).expect("it is right");
    assert!(reader.next().is_some_and(|row| row.is_ok()));
    assert!(reader.next().is_some_and(|row| row.is_err()));
    assert!(reader.next().is_none() && reader.next().is_none());
}

#[test]
fn disk_that_fails_is_not_the_traces_fault() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let text = format!("{HEADER}\n{GOOD}\n");
    let mut reader = Reader::new(BufReader::new(text.as_bytes().chain(Failing))).expect("the header is right");
    assert!(reader.next().is_some_and(|row| row.is_ok()));
    assert!(matches!(reader.next(), Some(Err(TraceError::Io { line: 3, .. }))));
}

#[test]
fn calls_that_end_in_any_order_are_written_in_that_of_their_arrival() {
    let mut order = InOrder::default();
    let arrive = |order: &mut InOrder, at_us, who: &str| {
        let Row { tenant, function, sub_tenant, .. } = row(at_us, who);
        order.arrived(at_us, tenant, function, sub_tenant)
    };
    let [a, b, c] = [(1, "a"), (3, "b"), (2, "c")].map(|(at, who)| arrive(&mut order, at, who));
    order.ended(c, 1500, Outcome::Ok);
    assert_eq!(order.pop(), None);
    order.ended(a, 1500, Outcome::Ok);
    order.ended(a, 9, Outcome::Crash);
    assert_eq!((order.pop(), order.pop()), (Some(row(1, "a")), None));
    order.dropped(b);
    // The clock went back; a trace does not.
    assert_eq!((order.pop(), order.pop()), (Some(row(3, "c")), None));
    order.ended(a, 1500, Outcome::Ok);
    assert_eq!((order.pop(), order.given_up()), (None, 0));
}

#[test]
fn call_that_holds_back_one_too_many_is_given_up() {
    let mut order = InOrder::default();
    let Row { tenant, function, sub_tenant, .. } = row(0, "a");
    let slow = order.arrived(0, tenant, function, sub_tenant);
    for at_us in 1..PENDING_MAX as u64 {
        let ticket = order.arrived(at_us, tenant, function, sub_tenant);
        order.ended(ticket, 1500, Outcome::Ok);
        assert_eq!(order.pop(), None);
    }
    assert_eq!(order.given_up(), 0);
    order.arrived(PENDING_MAX as u64, tenant, function, sub_tenant);
    assert_eq!((order.given_up(), order.pop()), (1, Some(row(1, "a"))));
    order.ended(slow, 1500, Outcome::Ok);
    assert_eq!(std::iter::from_fn(|| order.pop()).count(), PENDING_MAX - 2);
}
