//! docs/layers.md says where each layer is met; this walks its tables. (That real traffic meets each layer that is live is shown by
//! crates/kernel/tests/every_layer.rs.)

mod common;

use common::{lines, root, succeeds};
use openwfp_kernel::hooks::Hook;
use openwfp_model::{FieldId, Layer};
use openwfp_packet::replay::REPLAY_LAYERS;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// The rows of the table whose head begins with this cell.
fn table(head: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/layers.md")).unwrap();
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let from_head = text.lines().skip_while(|line| !line.starts_with(&format!("| {head} |")));
    let rows: Vec<Vec<String>> = from_head.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "there is no table {head}");
    rows
}

/// The entries of a cell; `–` is none.
fn entries(cell: &str) -> Vec<&str> {
    cell.split(", ").filter(|entry| *entry != "–").map(|entry| entry.trim_matches('`')).collect()
}

#[test]
fn each_layer_is_met_where_its_row_says() {
    let rows = table("id");
    assert_eq!(rows.len(), Layer::all().len());
    for (row, layer) in rows.iter().zip(Layer::all()) {
        let [id, name, live, hook, replay, last] = &row[..] else { panic!("{row:?}") };
        assert_eq!((id.as_str(), name.as_str()), (layer.id.get().to_string().as_str(), layer.name));
        let hooks = Hook::of_layer(layer.id);
        let of_devices = Hook::of_device_layer(layer.id);
        let mut expected = vec![];
        expected.extend((!hooks.is_empty()).then_some("group"));
        expected.extend(of_devices.map(|_| "namespace"));
        assert_eq!(entries(live), expected, "{name}");
        let replayed = if REPLAY_LAYERS.contains(&layer.id) { "yes" } else { "–" };
        assert_eq!(replay, replayed, "{name}");
        let of_kernel = Hook::is_of_kernel_drops(layer.id).then_some(Hook::KernelDrop);
        let classifying = Hook::classifying(layer.id).into_iter().chain(of_devices).chain(of_kernel).map(Hook::name);
        assert_eq!(entries(hook).into_iter().collect::<BTreeSet<_>>(), classifying.collect(), "{name}");
        assert!(!last.is_empty(), "{name}: neither fields nor a reason");
    }
}

#[test]
fn each_layer_has_the_fields_that_its_row_says() {
    let mut sets: BTreeMap<String, BTreeSet<FieldId>> = BTreeMap::new();
    for row in table("set") {
        let fields = entries(&row[1]).into_iter().map(|name| FieldId::find(name).unwrap_or_else(|| panic!("{name}")));
        sets.entry(row[0].clone()).or_default().extend(fields);
    }
    for row in table("id") {
        let name = row[1].as_str();
        let live = entries(&row[2]);
        if live.is_empty() {
            continue;
        }
        let said: BTreeSet<FieldId> = entries(&row[5]).into_iter().flat_map(|set| sets[set].iter().copied()).collect();
        let layer = Layer::find(name).unwrap();
        for set in entries(&row[5]) {
            assert!(sets[set].iter().any(|field| layer.field(*field).is_some()), "{name} has nothing of {set}");
        }
        // of the layers of devices `wfp run` fills in nothing
        if live.contains(&"group") {
            let filled = filled_in(name);
            for field in layer.fields {
                assert_eq!(said.contains(&field.field), filled.contains(&field.field), "{name} {}", field.field);
            }
        }
    }
}

/// The fields that `wfp` says are filled in live.
fn filled_in(layer: &str) -> BTreeSet<FieldId> {
    let shown = lines(&succeeds(&["show", "layers", layer, "--json"]));
    let is_live = |field: &&Json| {
        let filled = field["filled"].as_array().unwrap();
        filled.iter().any(|place| place == "live" || place == "late")
    };
    let fields = shown[0]["fields"].as_array().unwrap().iter().filter(is_live);
    fields.map(|field| FieldId::find(field["field"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn short_names_stand_for_layers_that_there_are() {
    for row in table("short") {
        let (short, real) = (entries(&row[0]), entries(&row[1]));
        assert_eq!(short.len(), real.len());
        for (short, real) in short.into_iter().zip(real) {
            assert!(!Layer::family(real).is_empty(), "{real}");
            assert!(Layer::family(short).is_empty(), "{short} is a name of its own");
        }
    }
}

#[test]
fn every_program_of_the_table_of_hooks_is_one() {
    let programs: BTreeSet<&str> =
        Layer::all().iter().flat_map(|layer| Hook::of_layer(layer.id)).map(Hook::name).collect();
    let named = table("program");
    let named: BTreeSet<&str> = named.iter().flat_map(|row| entries(&row[0])).collect();
    for name in programs.into_iter().filter(|name| *name != "create").chain(["device_in", "device_out", "kernel_drop"])
    {
        assert!(named.contains(name), "{name}");
    }
}
