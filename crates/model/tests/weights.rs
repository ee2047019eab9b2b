//! The order of filters on real machines, against ours.
//!
//! The rule was inferred from machine a; machine b has another version of the system.

mod dumps;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use dumps::say;
use openwfp_model::{
    FieldId, FilterCondition, Layer, LayerId, MatchType, SecurityDescriptor, Sid, Value, Weight, weight,
};
use roxmltree::{Document, Node};

/// The share of pairs that must stand in the same order.
const LEAST_AGREEMENT: f64 = 0.95;
/// The share of filters that may be impossible to represent.
const MOST_SKIPPED: f64 = 0.02;

#[test]
fn filters_stand_in_the_order_of_real_machines() {
    let Some(dumps) = dumps::filters() else { return };
    for (machine, text) in dumps {
        let Filters { filters, skipped } = Filters::read(&text);
        let automatic: Vec<_> = filters.iter().filter(|filter| filter.is_automatic()).collect();
        let all: Vec<_> = filters.iter().collect();
        let exact = automatic.iter().filter(|filter| filter.ours() == filter.effective).count();

        say(format_args!("machine {machine}: {} filters read, {} skipped {skipped:?}", all.len(), skipped.len()));
        say(format_args!("  the same number: {exact} of {} automatic weights", automatic.len()));
        for (name, agreement) in [
            ("all filters", Agreement::of(&all, |_| 0)),
            ("automatic weights only", Agreement::of(&automatic, |_| 0)),
            ("automatic weights of one range only", Agreement::of(&automatic, |filter| filter.effective >> 60)),
        ] {
            say(format_args!("  {name}: {agreement}"));
            assert!(agreement.share() >= LEAST_AGREEMENT, "machine {machine}, {name}: {agreement}");
        }
        assert!(skipped.len() as f64 <= MOST_SKIPPED * (all.len() + skipped.len()) as f64, "{skipped:?}");
    }
}

/// A filter of a real machine.
struct Filter {
    layer: LayerId,
    sublayer: String,
    weight: Weight,
    conditions: Vec<FilterCondition>,
    effective: u64,
}

impl Filter {
    fn is_automatic(&self) -> bool {
        !matches!(self.weight, Weight::Exact(_))
    }

    fn ours(&self) -> u64 {
        weight::effective(self.weight, self.layer, &self.conditions)
    }
}

/// How far two orders agree. Pairs are those of two filters in one sublayer of one layer, on one machine.
#[derive(Default)]
struct Agreement {
    /// Pairs whose weights differ there: these count.
    different: usize,
    /// Those of them that stand in the same order here.
    same_order: usize,
    /// Pairs whose weights are equal there.
    equal: usize,
    /// Those of them whose weights are equal here.
    equal_too: usize,
}

impl Agreement {
    /// Among filters for which `part` is the same.
    fn of(filters: &[&Filter], part: fn(&Filter) -> u64) -> Agreement {
        let mut groups = BTreeMap::<_, Vec<(u64, u64)>>::new();
        for filter in filters {
            let group = groups.entry((filter.layer, &filter.sublayer, part(filter))).or_default();
            group.push((filter.effective, filter.ours()));
        }
        let mut agreement = Agreement::default();
        for group in groups.values() {
            for (index, first) in group.iter().enumerate() {
                for second in &group[index + 1..] {
                    agreement.add(*first, *second);
                }
            }
        }
        agreement
    }

    fn add(&mut self, first: (u64, u64), second: (u64, u64)) {
        let agrees = first.0.cmp(&second.0) == first.1.cmp(&second.1);
        let (pairs, agreeing) = match first.0 == second.0 {
            true => (&mut self.equal, &mut self.equal_too),
            false => (&mut self.different, &mut self.same_order),
        };
        *pairs += 1;
        *agreeing += usize::from(agrees);
    }

    fn share(&self) -> f64 {
        self.same_order as f64 / self.different as f64
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Agreement { different, same_order, equal, equal_too } = self;
        write!(f, "{same_order} of {different} pairs of different weight in the same order")?;
        write!(f, " ({:.3} %), {equal_too} of {equal} pairs of equal weight equal", 100.0 * self.share())
    }
}

/// The filters of a machine.
struct Filters {
    filters: Vec<Filter>,
    /// What could not be represented, of each filter that was left out for it.
    skipped: Vec<String>,
}

impl Filters {
    fn read(text: &str) -> Filters {
        let document = Document::parse(text.trim_start_matches('\u{feff}')).expect("well-formed XML");
        let list = document.root_element().children().find(|node| node.has_tag_name("filters")).expect("filters");
        let mut filters = Filters { filters: Vec::new(), skipped: Vec::new() };
        for item in items(list) {
            match filter(item) {
                Ok(filter) => filters.filters.push(filter),
                Err(reason) => filters.skipped.push(reason),
            }
        }
        filters
    }
}

fn items<'a, 'input>(list: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    list.children().filter(|node| node.has_tag_name("item"))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Result<Node<'a, 'input>, String> {
    node.children().find(|node| node.has_tag_name(name)).ok_or_else(|| format!("no {name}"))
}

fn text<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, String> {
    child(node, name)?.text().ok_or_else(|| format!("empty {name}"))
}

fn filter(item: Node<'_, '_>) -> Result<Filter, String> {
    let layer = text(item, "layerKey")?;
    let weight = child(item, "weight")?;
    let conditions = child(item, "filterCondition")?;
    Ok(Filter {
        layer: Layer::find(layer).ok_or_else(|| layer.to_owned())?.id,
        sublayer: text(item, "subLayerKey")?.to_owned(),
        weight: match text(weight, "type")? {
            "FWP_EMPTY" => Weight::Automatic,
            "FWP_UINT8" => Weight::Range(parse(text(weight, "uint8")?)?),
            "FWP_UINT64" => Weight::Exact(parse(text(weight, "uint64")?)?),
            other => return Err(format!("weight of type {other}")),
        },
        conditions: items(conditions).map(condition).collect::<Result<_, _>>()?,
        effective: parse(text(child(item, "effectiveWeight")?, "uint64")?)?,
    })
}

fn condition(item: Node<'_, '_>) -> Result<FilterCondition, String> {
    let field = text(item, "fieldKey")?;
    let match_type = text(item, "matchType")?;
    Ok(FilterCondition {
        field: FieldId::find(field).ok_or_else(|| field.to_owned())?,
        match_type: MatchType::ALL
            .into_iter()
            .find(|known| known.name() == match_type)
            .ok_or_else(|| match_type.to_owned())?,
        value: value(child(item, "conditionValue")?)?,
    })
}

fn value(node: Node<'_, '_>) -> Result<Value, String> {
    Ok(match text(node, "type")? {
        "FWP_EMPTY" => Value::Empty,
        "FWP_UINT8" => Value::Uint8(parse(text(node, "uint8")?)?),
        "FWP_UINT16" => Value::Uint16(parse(text(node, "uint16")?)?),
        "FWP_UINT32" => Value::Uint32(number_or_address(text(node, "uint32")?)?),
        "FWP_UINT64" => Value::Uint64(parse(text(node, "uint64")?)?),
        "FWP_BYTE_ARRAY16_TYPE" => Value::ByteArray16(parse::<Ipv6Addr>(text(node, "byteArray16")?)?.octets()),
        "FWP_BYTE_BLOB_TYPE" => Value::ByteBlob(bytes(text(child(node, "byteBlob")?, "data")?)?),
        "FWP_SID" => Value::Sid(parse::<Sid>(text(node, "sid")?)?),
        "FWP_SECURITY_DESCRIPTOR_TYPE" => Value::SecurityDescriptor(parse::<SecurityDescriptor>(text(node, "sd")?)?),
        "FWP_RANGE_TYPE" => {
            let range = child(node, "rangeValue")?;
            Value::range(value(child(range, "valueLow")?)?, value(child(range, "valueHigh")?)?)
        }
        other => return Err(format!("value of type {other}")),
    })
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("value {text}"))
}

/// 32 bits are written as an IPv4 address where the field holds one.
fn number_or_address(text: &str) -> Result<u32, String> {
    parse(text).or_else(|_| parse::<Ipv4Addr>(text).map(Ipv4Addr::to_bits))
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    pairs.map(|pair| pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect::<Option<_>>().ok_or(hex.into())
}
