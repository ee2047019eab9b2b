//! The numbers of types that are written by hand are the public ones.

use bitflags::Flags;

use crate::generated::numbers::NUMBERS;
use crate::{
    CalloutFlags, DataType, FieldType, FilterFlags, LayerFlags, MatchType, ProviderContextFlags, ProviderFlags,
    SublayerFlags,
};

fn public(prefix: &str) -> Vec<(&'static str, u32)> {
    let mut public: Vec<_> = NUMBERS.iter().copied().filter(|(name, _)| name.starts_with(prefix)).collect();
    public.sort_by_key(|(_, number)| *number);
    public
}

#[test]
fn match_types() {
    let ours: Vec<_> = MatchType::ALL.iter().map(|match_type| (match_type.name(), *match_type as u32)).collect();
    assert_eq!(ours, public("FWP_MATCH_"));
}

#[test]
fn data_types() {
    let numbers: Vec<_> = DataType::ALL.iter().map(|data_type| (data_type.name(), *data_type as u32)).collect();
    for number in &numbers {
        assert!(NUMBERS.contains(number), "{number:?}");
    }
    let types = NUMBERS.iter().filter(|(name, _)| DataType::ALL.iter().any(|data_type| data_type.name() == *name));
    assert_eq!(types.count(), numbers.len());
}

#[test]
fn field_types() {
    let ours = [FieldType::RawData, FieldType::IpAddress, FieldType::Flags];
    let ours: Vec<_> = ours.iter().map(|field_type| (field_type.name(), *field_type as u32)).collect();
    assert_eq!(ours, public("FWPM_FIELD_"));
}

#[test]
fn flags_of_objects() {
    fn check<F: Flags<Bits = u32>>(prefix: &str) {
        let ours: Vec<_> =
            F::FLAGS.iter().map(|flag| (format!("{prefix}{}", flag.name()), flag.value().bits())).collect();
        let public = public(prefix).into_iter().filter(|(_, number)| *number != 0);
        let public: Vec<_> = public.map(|(name, number)| (name.to_owned(), number)).collect();
        assert_eq!(ours, public);
    }
    check::<LayerFlags>("FWPM_LAYER_FLAG_");
    check::<FilterFlags>("FWPM_FILTER_FLAG_");
    check::<SublayerFlags>("FWPM_SUBLAYER_FLAG_");
    check::<ProviderFlags>("FWPM_PROVIDER_FLAG_");
    check::<ProviderContextFlags>("FWPM_PROVIDER_CONTEXT_FLAG_");
    check::<CalloutFlags>("FWPM_CALLOUT_FLAG_");
}
