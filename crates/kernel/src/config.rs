//! What the programs are told in the `CONFIG` map, and how it goes over from one policy to the next.

use crate::{
    hooks::Hook,
    load::{LoadError, Shims},
    options::Options,
    records::Record,
};
use aya::maps::{Array, MapError};
use openwfp_abi::config::{
    AT_DEVICES, AUTHORIZATIONS, BY_INTERFACE, BY_LOCAL, CHANGED, Config, DIVERTS, DRY_RUN, FLOWS_RECORDED, FORGETS,
    FORGOTTEN, INBOUND_ASKED, LATE, LISTEN_FILTERS, PACKET_LAYERS, REFUSED_FLOWS, TCP_ARRIVES, TCP_LEAVES, UDP_ARRIVES,
    UDP_LEAVES,
};
use openwfp_engine::{CompiledPolicy, Schema, Unknown, filter_flags, kind, words};
use openwfp_model::{FieldId, Layer, LayerId};
use std::time::Duration;

/// Bits that stay once they were set. Sockets and flows were marked under them, which only they let be looked at: connects
/// that wait for their first packet, refused flows, authorizations by an earlier policy, connects that left nothing.
const LASTING: u64 = LATE | REFUSED_FLOWS | CHANGED | FORGOTTEN;

/// The layers at which a policy has filters.
pub(crate) fn used_layers(policy: &CompiledPolicy) -> impl Iterator<Item = LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| !policy.layer_of(*layer).places.is_empty())
}

/// The layers that authorize flows of datagrams.
const AUTHORIZE: [LayerId; 6] = [
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
    LayerId::ALE_FLOW_ESTABLISHED_V4,
    LayerId::ALE_FLOW_ESTABLISHED_V6,
];
const LOCAL_SIDE: [FieldId; 3] = [FieldId::IP_LOCAL_ADDRESS, FieldId::IP_LOCAL_ADDRESS_TYPE, FieldId::IP_LOCAL_PORT];
const INTERFACES: [FieldId; 14] = [
    FieldId::INTERFACE_INDEX,
    FieldId::INTERFACE_TYPE,
    FieldId::TUNNEL_TYPE,
    FieldId::IP_LOCAL_INTERFACE,
    FieldId::SUB_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_TYPE,
    FieldId::ARRIVAL_TUNNEL_TYPE,
    FieldId::IP_ARRIVAL_INTERFACE,
    FieldId::NEXTHOP_INTERFACE_INDEX,
    FieldId::NEXTHOP_INTERFACE_TYPE,
    FieldId::NEXTHOP_TUNNEL_TYPE,
    FieldId::IP_NEXTHOP_INTERFACE,
    FieldId::NEXTHOP_SUB_INTERFACE_INDEX,
];

/// Whether a filter that authorizes flows tests one of these fields. (Type and code of ICMP are the ports' fields, but are
/// part of what a flow is anyway.)
fn tests(policy: &CompiledPolicy, fields: &[FieldId]) -> bool {
    let filters = policy.filters().iter().map(|filter| &filter.filter);
    let mut conditions =
        filters.filter(|filter| AUTHORIZE.contains(&filter.layer)).flat_map(|filter| &filter.conditions);
    conditions.any(|condition| fields.contains(&condition.field))
}

/// Whether a layer is one of packets or frames, at sockets or at devices.
fn is_of_packets(layer: LayerId) -> bool {
    Hook::is_packet_layer(layer) || Hook::of_device_layer(layer).is_some()
}

/// Which packets of TCP and UDP meet a layer at their socket.
fn met_by(layer: LayerId) -> u64 {
    match layer {
        LayerId::INBOUND_IPPACKET_V4
        | LayerId::INBOUND_IPPACKET_V6
        | LayerId::INBOUND_TRANSPORT_V4
        | LayerId::INBOUND_TRANSPORT_V6 => TCP_ARRIVES | UDP_ARRIVES,
        LayerId::OUTBOUND_IPPACKET_V4
        | LayerId::OUTBOUND_IPPACKET_V6
        | LayerId::OUTBOUND_TRANSPORT_V4
        | LayerId::OUTBOUND_TRANSPORT_V6 => TCP_LEAVES | UDP_LEAVES,
        LayerId::STREAM_PACKET_V4 | LayerId::STREAM_PACKET_V6 => TCP_LEAVES | TCP_ARRIVES,
        LayerId::DATAGRAM_DATA_V4 | LayerId::DATAGRAM_DATA_V6 => UDP_LEAVES | UDP_ARRIVES,
        // of ICMP alone
        LayerId::INBOUND_ICMP_ERROR_V4
        | LayerId::INBOUND_ICMP_ERROR_V6
        | LayerId::OUTBOUND_ICMP_ERROR_V4
        | LayerId::OUTBOUND_ICMP_ERROR_V6 => 0,
        _ => TCP_LEAVES | TCP_ARRIVES | UDP_LEAVES | UDP_ARRIVES,
    }
}

/// The layers at which an outgoing connection is authorized.
const CALLS: [LayerId; 4] = [
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_CONNECT_REDIRECT_V4,
    LayerId::ALE_CONNECT_REDIRECT_V6,
];

/// A bit for each word that filters at some layers test: [`Config::packet_words`], [`Config::call_words`].
fn words_tested(policy: &CompiledPolicy, at: impl Fn(LayerId) -> bool) -> u64 {
    let filters = policy.filters().iter().map(|filter| &filter.filter);
    let words = filters.filter(|filter| at(filter.layer)).flat_map(|filter| {
        let schema = Schema::of(filter.layer);
        filter.conditions.iter().filter_map(|condition| schema.field(condition.field)).flat_map(|field| {
            // a user is its groups too
            let groups = if field.first == words::ALE_USER_ID { words::GROUPS..words::GROUPS + 2 } else { 0..0 };
            (field.first..field.first + field.count).chain(groups)
        })
    });
    words.fold(0, |bits, word| bits | 1 << word)
}

/// Whether a filter names a callout that is registered.
fn names_registered(policy: &CompiledPolicy) -> bool {
    let mut filters = policy.image().cells().iter().filter(|cell| cell.kind() == kind::FILTER);
    filters.any(|cell| cell.filter_flags() & filter_flags::CALLOUT_REGISTERED != 0)
}

/// The settings for a policy whose image is at `base`.
pub(crate) fn of_policy(
    policy: &CompiledPolicy,
    base: u32,
    options: &Options,
    recorded: &[LayerId],
    namespace: u64,
) -> Config {
    let image = Config::image_word(base, policy.generation());
    let mut config = Config { image, namespace, ..Config::default() };
    recorded.iter().for_each(|layer| config.record(layer.get()));
    used_layers(policy).for_each(|layer| config.activate(layer.get()));
    let layers: Vec<LayerId> = used_layers(policy).chain(recorded.iter().copied()).collect();
    let any = |wanted: &[LayerId]| layers.iter().any(|layer| wanted.contains(layer));
    if options.dry_run {
        config.flags |= DRY_RUN;
    }
    let established = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6];
    if any(&established) {
        config.flags |= REFUSED_FLOWS;
    }
    if recorded.iter().any(|layer| established.contains(layer)) {
        config.flags |= FLOWS_RECORDED;
    }
    let auth_listen = [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6];
    if used_layers(policy).any(|layer| auth_listen.contains(&layer) || established.contains(&layer)) {
        config.flags |= LISTEN_FILTERS;
    }
    let late = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]
        .into_iter()
        .any(|layer| policy.layer_of(layer).places.iter().any(|place| place.marker == Some(Unknown::Late)));
    if late {
        config.flags |= LATE;
    }
    let inbound = [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6];
    if any(&inbound) || any(&established) {
        config.flags |= INBOUND_ASKED;
    }
    if tests(policy, &LOCAL_SIDE) {
        config.flags |= BY_LOCAL;
    }
    if tests(policy, &INTERFACES) {
        config.flags |= BY_INTERFACE;
    }
    let recorded_packets = recorded.iter().any(|layer| is_of_packets(*layer));
    if options.diverted > 0 && names_registered(policy) {
        config.flags |= DIVERTS;
    }
    // a callout is told everything; and a packet may be classified afresh, by a policy that tests something else
    let everything = recorded_packets || config.flags & DIVERTS != 0;
    config.packet_words = if everything { u64::MAX } else { words_tested(policy, is_of_packets) };
    // an event of a _DISCARD layer is told with all its values
    let told = !recorded.is_empty() || layers.iter().any(|layer| layer.name().ends_with("_DISCARD"));
    config.call_words = if told { u64::MAX } else { words_tested(policy, |layer| !is_of_packets(layer)) };
    let owner = words::OWNER.iter().fold(0, |bits, word| bits | 1 << word);
    // nothing is shown, or replaced, or waits for a packet; nobody looks at a connection again, nor at who made it
    if !options.replaceable
        && !options.devices
        && options.diverted == 0
        && !late
        && !layers.is_empty()
        && layers.iter().all(|layer| CALLS.contains(layer))
        && recorded.is_empty()
        && config.call_words & owner == 0
        && config.flags & BY_INTERFACE == 0
    {
        config.flags |= FORGETS;
    }
    let at_socket = |layer: LayerId| !options.devices || Hook::of_device_layer(layer).is_none();
    for layer in layers.iter().filter(|layer| Hook::is_packet_layer(**layer) && at_socket(**layer)) {
        config.flags |= PACKET_LAYERS | met_by(*layer);
    }
    if options.devices {
        config.flags |= AT_DEVICES;
    }
    config
}

/// The settings of a policy that takes the place of another at this time of the monotonic clock: what was authorized before at
/// layers whose filters differ has to be authorized again.
pub(crate) fn changed(next: Config, before: &Config, differ: [bool; AUTHORIZATIONS], at: Duration) -> Config {
    let (network, network_at) = (before.network, before.network_at);
    let flags = remembers(next.flags, before.flags);
    let mut config =
        Config { changed: before.changed, changed_at: before.changed_at, network, network_at, flags, ..next };
    for (place, _) in differ.iter().enumerate().filter(|(_, differs)| **differs) {
        config.changed[place] = (next.image >> 32) as u32;
        config.changed_at[place] = nanoseconds(at);
        config.flags |= CHANGED;
    }
    config
}

/// The settings when interfaces or addresses have come or gone: whatever was authorized before has to be authorized again.
pub(crate) fn network_changed(config: &Config, at: Duration) -> Config {
    let network = config.network.wrapping_add(1);
    let flags = remembers(config.flags, config.flags) | CHANGED;
    Config { flags, network, network_at: nanoseconds(at), ..*config }
}

/// Flags under which connects are kept with their sockets: what has changed once may do so again.
fn remembers(flags: u64, before: u64) -> u64 {
    let forgotten = if before & (FORGETS | FORGOTTEN) != 0 { FORGOTTEN } else { 0 };
    flags & !FORGETS | forgotten
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The image of `now` and what belongs to it, and what both policies ask for besides.
pub(crate) fn both(now: &Config, next: &Config) -> Config {
    let union = |a: [u64; 2], b: [u64; 2]| [a[0] | b[0], a[1] | b[1]];
    Config {
        image: now.image,
        changed: now.changed,
        changed_at: now.changed_at,
        flags: remembers(now.flags | next.flags, now.flags),
        recorded: union(now.recorded, next.recorded),
        active: union(now.active, next.active),
        packet_words: now.packet_words | next.packet_words,
        call_words: now.call_words | next.call_words,
        ..*next
    }
}

/// What stands when the policy of `next` has taken the place of that of `before`.
pub(crate) fn settled(before: &Config, next: &Config) -> Config {
    Config { flags: next.flags | before.flags & LASTING, ..*next }
}

/// Writes the settings. The image word decides alone, and what the others say is written before it or after it.
///
/// The kernel copies the entry with `memcpy`, which moves aligned words whole on every machine that we know, but promises
/// nothing. Were the image word torn, it would name a place where no image of that generation begins: each image says in its
/// header which one it is, and an event that does not find it there is blocked.
pub(crate) fn write(shims: &mut Shims, config: Config) -> Result<(), LoadError> {
    let name = "CONFIG";
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = shims.ebpf().map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = Array::<_, Record<Config>>::try_from(map).map_err(failed)?;
    map.set(0, Record(config), 0).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sockets_were_marked_under_lasts() {
        let config =
            |generation, flags| Config { image: Config::image_word(0, generation), flags, ..Config::default() };
        let (before, next) = (config(1, LATE | LISTEN_FILTERS), config(2, PACKET_LAYERS));
        assert_eq!(both(&before, &next), config(1, LATE | LISTEN_FILTERS | PACKET_LAYERS));
        assert_eq!(settled(&before, &next), config(2, LATE | PACKET_LAYERS));
    }

    #[test]
    fn only_layers_that_differ_have_changed() {
        let config = |generation| Config { image: Config::image_word(0, generation), ..Config::default() };
        let at = Duration::from_nanos;
        let same = changed(config(2), &config(1), [false; AUTHORIZATIONS], at(5));
        assert_eq!(same, config(2), "nothing has to be looked at");
        let once = changed(config(3), &same, [true, false, false, true], at(6));
        assert_eq!((once.changed, once.changed_at), ([3, 0, 0, 3], [6, 0, 0, 6]));
        let moved = network_changed(&once, at(7));
        let twice = changed(config(4), &moved, [true, true, false, false], at(8));
        assert_eq!((twice.changed, twice.changed_at), ([4, 4, 0, 3], [8, 8, 0, 6]));
        assert_eq!((twice.network, twice.network_at, twice.flags), (1, 7, CHANGED));
    }
}
