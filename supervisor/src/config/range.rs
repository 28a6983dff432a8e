//! Regular expressions for whole numbers of a range: a JSON Schema has no other way to bound a text with a unit.

/// A text that is a number from `min` to `max`, in any of these units, each with how many it stands for; or one of `words`.
/// As the reader, it takes zeros in front.
pub fn with_units(min: u64, max: u64, units: &[(&str, u64)], words: &[&str]) -> String {
    let of_unit = |(name, factor): &(&str, u64)| {
        let (least, most) = (min.div_ceil(*factor), max / factor);
        (least <= most).then(|| format!("0*({}){name}", between(least, most)))
    };
    let all: Vec<String> =
        units.iter().filter_map(of_unit).chain(words.iter().map(|word| (*word).to_owned())).collect();
    format!("^({})$", all.join("|"))
}

/// The numbers from `min` to `max`, without zeros in front.
fn between(min: u64, max: u64) -> String {
    let mut ends = vec![max];
    // Below the first round number, the last digits of `min` count; above the last one, those of `max`.
    let powers = (1..=19).map(|exponent| 10_u64.pow(exponent));
    for power in powers.clone() {
        let end = (min / power).saturating_mul(power).saturating_add(power - 1);
        if end >= max {
            break;
        }
        ends.push(end);
    }
    for power in powers {
        let end = max.saturating_add(1) / power * power;
        if end <= min {
            break;
        }
        ends.push(end - 1);
    }
    ends.sort_unstable();
    ends.dedup();
    let mut start = min;
    let mut parts = Vec::new();
    for end in ends {
        parts.push(digits(start, end));
        start = end.saturating_add(1);
    }
    parts.join("|")
}

/// Two numbers of one length that differ in digits that run over all between theirs.
fn digits(start: u64, end: u64) -> String {
    let (start, end) = (start.to_string(), end.to_string());
    let mut text = String::new();
    let mut any = 0;
    for (low, high) in start.chars().zip(end.chars()) {
        match (low, high) {
            ('0', '9') => any += 1,
            _ if low == high => text.push(low),
            _ => text.push_str(&format!("[{low}-{high}]")),
        }
    }
    match any {
        0 => text,
        1 => text + "[0-9]",
        _ => format!("{text}[0-9]{{{any}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the expression takes a number: what [`between`] makes is made of no more than this knows.
    fn takes(expression: &str, number: u64) -> bool {
        let text = number.to_string();
        expression.split('|').any(|part| {
            let mut rest = text.chars();
            let mut pattern = part.chars().peekable();
            while let Some(c) = pattern.next() {
                let (low, high) = match c {
                    '[' => {
                        let bounds: Vec<char> = pattern.by_ref().take_while(|c| *c != ']').collect();
                        (bounds[0], bounds[2])
                    }
                    c => (c, c),
                };
                let mut times = 1;
                if pattern.peek() == Some(&'{') {
                    let count: String = pattern.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    times = count.parse().unwrap();
                }
                for _ in 0..times {
                    if !rest.next().is_some_and(|digit| (low..=high).contains(&digit)) {
                        return false;
                    }
                }
            }
            rest.next().is_none()
        })
    }

    #[test]
    fn numbers_of_the_range_are_taken_and_no_others() {
        for min in 0..130 {
            for max in min..1300 {
                let expression = between(min, max);
                let near = [0, min.saturating_sub(1), min, min + 1, max - (max - min) / 2, max.saturating_sub(1), max];
                for number in near.into_iter().chain([max + 1, max + 10, max * 10, 9, 10, 99, 100, 999, 1000]) {
                    let is_in = (min..=max).contains(&number);
                    assert_eq!(takes(&expression, number), is_in, "{number} of {min} to {max}: {expression}");
                }
            }
        }
        let most = 1 << 50;
        let expression = between(4096, most);
        for (number, is_in) in [(4095, false), (4096, true), (most, true), (most + 1, false), (most / 7, true)] {
            assert_eq!(takes(&expression, number), is_in, "{number}: {expression}");
        }
    }

    #[test]
    fn every_unit_has_a_range_of_its_own() {
        let units = [("KiB", 1024), ("B", 1)];
        assert_eq!(
            with_units(2048, 4096, &units, &["none"]),
            format!("^(0*([2-4])KiB|0*({})B|none)$", between(2048, 4096))
        );
        assert_eq!(with_units(1, 9, &units, &[]), "^(0*([1-9])B)$", "no whole KiB is in it");
    }
}
