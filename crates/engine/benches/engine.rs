//! What a classification and a compilation cost, by the number of filters.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use openwfp_engine::{Event, Silent, Values, classify, compile_objects};
use openwfp_model::{Action, FieldId, Filter, FilterCondition, LayerId, MatchType, Value};
use std::{hint::black_box, time::Duration};

const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// Numbers that look random and are the same in every run.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ z >> 31
}

/// Filters as an administrator has them: a network, often a port, sometimes a user.
fn filters(count: u64) -> Vec<(u64, Filter)> {
    let filter = |id: u64| {
        let random = mix(id);
        let prefix = [8, 16, 24, 24, 32, 32][random as usize % 6];
        let addr = (random >> 8) as u32 & u32::MAX << (32 - prefix);
        let network = Value::V4AddrMask { addr, prefix };
        let mut conditions = vec![FilterCondition::equal(FieldId::IP_REMOTE_ADDRESS, network)];
        if random >> 40 & 3 != 0 {
            let port = [80, 443, 53, 22, 25, 8080, 3306, 5432][(random >> 42) as usize % 8];
            conditions.push(FilterCondition::equal(FieldId::IP_REMOTE_PORT, Value::Uint16(port)));
        }
        if random >> 50 & 7 == 0 {
            let user = Value::User(1000 + (random >> 53) as u32 % 50);
            conditions.push(FilterCondition::new(FieldId::ALE_USER_ID, MatchType::Equal, user));
        }
        let action = if random >> 60 & 1 == 0 { Action::Permit } else { Action::Block };
        Filter::builder(format!("filter {id}"), LAYER).conditions(conditions).action(action).build().expect("valid")
    };
    (1..=count).map(|id| (id, filter(id))).collect()
}

/// Events that hit the filters' networks.
fn event(seed: u64, count: u64) -> Event {
    let random = mix(mix(seed) % count + 1);
    let port = [80u16, 443, 53, 22, 25, 8080, 3306, 5432][(random >> 42) as usize % 8];
    Event::new(LAYER)
        .with(FieldId::IP_PROTOCOL, Value::Uint8(6))
        .with(FieldId::IP_REMOTE_ADDRESS, Value::Uint32((random >> 8) as u32))
        .with(FieldId::IP_REMOTE_PORT, Value::Uint16(port))
        .with(FieldId::ALE_USER_ID, Value::User(1000 + seed as u32 % 60))
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for count in [10, 100, 1000, 10_000] {
        let compiled = compile_objects(1, &[], filters(count), &[]).expect("compiles");
        let events: Vec<Values> = (0..1024).map(|seed| compiled.values(&event(seed, count))).collect();
        let cells = compiled.image().cells();
        group.throughput(Throughput::Elements(events.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(count), &events, |bencher, events| {
            bencher.iter(|| {
                for values in events {
                    black_box(classify(cells, LAYER.get(), values, &mut Silent));
                }
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for count in [10, 100, 1000, 10_000] {
        let filters = filters(count);
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::from_parameter(count), &filters, |bencher, filters| {
            bencher.iter(|| compile_objects(1, &[], filters.clone(), &[]).expect("compiles"));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
