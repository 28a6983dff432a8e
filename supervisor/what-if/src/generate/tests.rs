use std::{collections::HashMap, time::Duration};

use super::*;
use crate::{
    Outcome, Row,
    random::{Random, Zipf},
};

fn rows(shape: &Shape, seed: u64) -> Vec<Row> {
    generate(shape, seed).expect("the shape is right").collect()
}

fn hour() -> Shape {
    Shape { duration: Duration::from_secs(3600), ..Shape::default() }
}

#[test]
fn same_seed_gives_the_same_rows_and_another_gives_others() {
    assert_eq!(rows(&hour(), 7), rows(&hour(), 7));
    assert_ne!(rows(&hour(), 7), rows(&hour(), 8));
}

#[test]
fn rows_are_in_order_and_such_as_a_trace_takes() {
    let mut writer = crate::Writer::new(Vec::new()).expect("memory takes everything");
    let rows = rows(&hour(), 1);
    rows.iter().for_each(|row| writer.write(row).expect("memory takes everything"));
    let text = writer.finish().expect("memory takes everything");
    let read: Result<Vec<Row>, _> = crate::Reader::new(text.as_slice()).expect("it is right").collect();
    assert_eq!(read.expect("it is right"), rows);
    assert!(rows.iter().all(|row| row.at_us < 3_600_000_000));
}

#[test]
fn rows_belong_to_the_setup_of_their_shape() {
    let shape = Shape { tenants: 4, functions_per_tenant: 3, ..hour() };
    let (host, tenant, function) = (crate::sample::host(), crate::sample::tenant(), crate::sample::function());
    let setup = shape.setup(host, tenant, &function).expect("the sample is right");
    let mut seen = HashMap::new();
    for row in rows(&shape, 1) {
        assert!(setup.function(&row.tenant, &row.function).is_some(), "{row:?}");
        *seen.entry((row.tenant, row.function)).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn rate_is_the_mean_over_a_day_and_swings() {
    let shape = Shape { bursts_per_hour: 0.0, calls_per_second: 5.0, ..Shape::default() };
    let rows = rows(&shape, 1);
    let expected = 5.0 * 86_400.0;
    assert!((rows.len() as f64 / expected - 1.0).abs() < 0.01, "{}", rows.len());
    // The sine is highest after 6 h and lowest after 18 h.
    let around = |hour: u64| rows.iter().filter(|row| row.at_us / 3_600_000_000 == hour).count() as f64;
    let swing = around(6) / around(18);
    assert!((swing / 4.0 - 1.0).abs() < 0.1, "{swing}");
}

#[test]
fn burst_is_one_sub_tenant_at_one_instant() {
    let shape = Shape { calls_per_second: 0.001, bursts_per_hour: 60.0, ..hour() };
    let rows = rows(&shape, 3);
    let bursts: Vec<&[Row]> = rows.chunk_by(|a, b| a.at_us == b.at_us).filter(|burst| burst.len() > 1).collect();
    assert!((30..100).contains(&bursts.len()), "{}", bursts.len());
    for burst in bursts {
        assert!((10..=1000).contains(&burst.len()), "{}", burst.len());
        assert!(burst.iter().all(|row| row.sub_tenant == burst[0].sub_tenant && row.function == burst[0].function));
    }
}

#[test]
fn service_times_have_their_median_and_outcomes_their_shares() {
    let shape = Shape { functions_per_tenant: 1, error_share: 0.2, crash_share: 0.1, ..hour() };
    let rows = rows(&shape, 1);
    let mut services: Vec<u64> = rows.iter().map(|row| row.service_us).collect();
    services.sort_unstable();
    let median = services[services.len() / 2] as f64;
    assert!((median / 20_000.0 - 1.0).abs() < 0.02, "{median}");
    let share = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as f64 / rows.len() as f64;
    assert!((share(Outcome::Error) - 0.2).abs() < 0.01 && (share(Outcome::Crash) - 0.1).abs() < 0.01);
}

#[test]
fn zipf_gives_each_rank_its_share() {
    for exponent in [0.5, 1.0, 1.5, 3.0] {
        let (zipf, mut random) = (Zipf::new(50, exponent), Random::new(1));
        let mut counts = [0_u32; 51];
        for _ in 0..200_000 {
            counts[zipf.sample(&mut random) as usize] += 1;
        }
        assert_eq!(counts[0], 0);
        let weight = |rank: usize| (rank as f64).powf(-exponent);
        let all: f64 = (1..=50).map(weight).sum();
        for (rank, count) in counts.iter().enumerate().skip(1) {
            let expected = 200_000.0 * weight(rank) / all;
            // Six standard deviations of a count, and a little for the small ones.
            let off = (f64::from(*count) - expected).abs();
            assert!(off < 6.0 * expected.sqrt() + 6.0, "exponent {exponent}, rank {rank}: {count}, {expected}");
        }
    }
    assert!((0..1000).all(|seed| Zipf::new(1, 1.0).sample(&mut Random::new(seed)) == 1));
}

#[test]
fn shape_that_makes_no_sense_is_refused_by_name() {
    let wrong = |change: &dyn Fn(&mut Shape)| {
        let mut shape = Shape::default();
        change(&mut shape);
        generate(&shape, 1).expect_err("it is wrong").to_string()
    };
    type Case<'a> = (&'a dyn Fn(&mut Shape), &'a str);
    let cases: &[Case<'_>] = &[
        (&|s| s.duration = Duration::ZERO, "duration = 0: "),
        (&|s| s.tenants = 0, "tenants = 0: "),
        (&|s| s.functions_per_tenant = 0, "functions_per_tenant = 0: "),
        (&|s| s.sub_tenants = 0, "sub_tenants = 0: "),
        (&|s| s.burst_size_min = 0, "burst_size_min = 0: "),
        (&|s| s.service_median = Duration::ZERO, "service_median = 0: "),
        (&|s| s.calls_per_second = 0.0, "calls_per_second = 0: not above zero"),
        (&|s| s.calls_per_second = -1.0, "calls_per_second = -1: not above zero"),
        (&|s| s.calls_per_second = f64::NAN, "calls_per_second = NaN: not above zero"),
        (&|s| s.calls_per_second = f64::INFINITY, "calls_per_second = inf: not from 0 to 1000000"),
        (&|s| s.zipf_exponent = 0.0, "zipf_exponent = 0: not above zero"),
        (&|s| s.zipf_exponent = 5.1, "zipf_exponent = 5.1: not from 0 to 5"),
        (&|s| s.burst_exponent = 0.0, "burst_exponent = 0: not above zero"),
        (&|s| s.burst_exponent = 10.1, "burst_exponent = 10.1: not from 0 to 10"),
        (&|s| s.daily_swing = 1.1, "daily_swing = 1.1: not from 0 to 1"),
        (&|s| s.bursts_per_hour = -1.0, "bursts_per_hour = -1: not from 0"),
        (&|s| s.service_sigma = f64::NAN, "service_sigma = NaN: not from 0 to 5"),
        (&|s| s.tenants = NAMES_MAX + 1, "tenants = 1001: not from 1 to 1000"),
        (&|s| s.sub_tenants = SUB_TENANTS_MAX as u32 + 1, "sub_tenants = 4000001: not from 1 to 4000000"),
        (&|s| s.burst_size_max = 9, "burst_size_min = 10 is above burst_size_max = 9"),
        (&|s| (s.error_share, s.crash_share) = (0.6, 0.5), "error_share and crash_share are 1.1 together"),
    ];
    for (change, part) in cases {
        let told = wrong(change);
        assert!(told.starts_with(part), "{told}");
    }
    assert_eq!(Shape::default().check(), Ok(()));
}
