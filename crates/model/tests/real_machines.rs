//! What real machines hold is accepted here.

mod dumps;

use openwfp_model::{DataType, FieldId, FilterCondition, Layer, MatchType, SecurityDescriptor, Value, builtin};
use roxmltree::{Document, Node};

#[test]
fn layers_sublayers_and_conditions_of_real_filters() {
    let Some(dumps) = dumps::filters() else { return };
    for (machine, text) in dumps {
        let document = Document::parse(text.trim_start_matches('\u{feff}')).unwrap();
        let filters = document.descendants().filter(|node| node.has_tag_name("filterKey"));
        let filters: Vec<_> = filters.filter_map(|key| key.parent()).collect();
        let mut conditions = 0;
        for filter in &filters {
            let layer = Layer::find(child_text(*filter, "layerKey")).expect("the layers are known");
            let sublayer = child_text(*filter, "subLayerKey");
            assert!(sublayer.starts_with('{') || builtin::find_sublayer(sublayer).is_some(), "{sublayer}");
            for item in child(*filter, "filterCondition").children().filter(Node::is_element) {
                let condition = condition(item);
                assert_eq!(condition.check(layer), Ok(()), "{condition:?} at {}", layer.name);
                conditions += 1;
            }
        }
        println!("machine {machine}: {} filters with {conditions} conditions", filters.len());
        assert!(conditions > filters.len());
    }
}

fn condition(item: Node<'_, '_>) -> FilterCondition {
    let field = FieldId::find(child_text(item, "fieldKey")).expect("the fields are known");
    let name = child_text(item, "matchType");
    let match_type = MatchType::ALL.into_iter().find(|match_type| match_type.name() == name);
    FilterCondition::new(field, match_type.expect("the match types are known"), value(child(item, "conditionValue")))
}

fn value(node: Node<'_, '_>) -> Value {
    let name = child_text(node, "type");
    let data_type = DataType::ALL.into_iter().find(|data_type| data_type.name() == name);
    match data_type.expect("the types are known") {
        DataType::Uint8 => Value::Uint8(child_text(node, "uint8").parse().unwrap()),
        DataType::Uint16 => Value::Uint16(child_text(node, "uint16").parse().unwrap()),
        DataType::Uint32 => Value::Uint32(uint32(child_text(node, "uint32"))),
        DataType::Uint64 => Value::Uint64(child_text(node, "uint64").parse().unwrap()),
        DataType::Sid => Value::Sid(child_text(node, "sid").parse().unwrap()),
        DataType::ByteArray16 => {
            let address: std::net::Ipv6Addr = child_text(node, "byteArray16").parse().unwrap();
            Value::v6_address(address)
        }
        DataType::ByteBlob => Value::ByteBlob(child_text(child(node, "byteBlob"), "data").as_bytes().to_vec()),
        DataType::SecurityDescriptor => Value::SecurityDescriptor(descriptor(child_text(node, "sd"))),
        DataType::Range => {
            let range = child(node, "rangeValue");
            Value::range(value(child(range, "valueLow")), value(child(range, "valueHigh")))
        }
        other => panic!("{other} is in no condition of these machines"),
    }
}

/// Addresses are written as such.
fn uint32(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits())
}

/// What is read is written in the same way, but for audit lists.
fn descriptor(text: &str) -> SecurityDescriptor {
    let descriptor: SecurityDescriptor = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(descriptor.to_string(), text.trim_end_matches("S:NO_ACCESS_CONTROL"));
    descriptor
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Node<'a, 'input> {
    let found = node.children().find(|child| child.has_tag_name(name));
    found.unwrap_or_else(|| panic!("<{}> has no <{name}>", node.tag_name().name()))
}

fn child_text<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    child(node, name).text().unwrap_or_default()
}
