//! Names as people write them: in any case, with or without the public prefix, and nearly right.

/// The name without the public prefix, where it has it, in any case of letters.
pub(crate) fn without_prefix<'a>(name: &'a str, prefix: &str) -> &'a str {
    match name.get(..prefix.len()) {
        Some(head) if head.eq_ignore_ascii_case(prefix) => &name[prefix.len()..],
        _ => name,
    }
}

/// The beginning of a wrong text for a message, with what cannot be printed escaped.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The candidate that is nearest to a wrong name, if one is near enough to be meant.
///
/// Letters of either case count as equal. A third of the letters may be wrong, missing, added or swapped.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    // The distance takes time and space in the product of the lengths, and no name is this long.
    if name.is_empty() || name.len() > 100 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_ascii_uppercase()), candidate))
        .filter(|(distance, candidate)| *distance <= name.len().max(candidate.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [&str; 3] = ["IP_LOCAL_PORT", "IP_REMOTE_PORT", "IP_PROTOCOL"];

    #[test]
    fn the_nearest_name() {
        assert_eq!(nearest("IP_REMOTE_PROT", PORTS), Some("IP_REMOTE_PORT"));
        assert_eq!(nearest("ip_protocl", PORTS), Some("IP_PROTOCOL"));
        assert_eq!(nearest("REMOTE_PORT", PORTS), Some("IP_REMOTE_PORT"));
        assert_eq!(nearest("colour", PORTS), None);
        assert_eq!(nearest("", PORTS), None);
        assert_eq!(nearest(&"A".repeat(1_000_000), PORTS), None);
    }

    #[test]
    fn excerpts_are_short_and_can_be_printed() {
        assert_eq!(excerpt("a\u{1b}é\n"), "a\\u{1b}é\\n");
        assert_eq!(excerpt(&"é".repeat(1000)), "é".repeat(60));
    }

    #[test]
    fn prefixes_in_any_case() {
        assert_eq!(without_prefix("fwpm_layer_STREAM_V4", "FWPM_LAYER_"), "STREAM_V4");
        assert_eq!(without_prefix("STREAM_V4", "FWPM_LAYER_"), "STREAM_V4");
        assert_eq!(without_prefix("ü", "FWPM_LAYER_"), "ü");
        assert_eq!(without_prefix("FWPM_LAYERü", "FWPM_LAYER_"), "FWPM_LAYERü");
    }
}
