//! Data of policies, filters and reports as JSON.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use openwfp_model::{Action, CalloutKind, Data, FilterFlags, Guid, Layer};
use serde_json::{Map, Value as Json, json};

use crate::{DnsReport, Filter, ProviderContext, Report};

pub(super) fn of_table(table: &BTreeMap<String, Data>) -> Json {
    table.iter().map(|(name, data)| (name.clone(), Json::from(data))).collect()
}

pub(super) fn to_data(json: &Json) -> Option<Data> {
    Some(match json {
        Json::Bool(boolean) => Data::Boolean(*boolean),
        Json::Number(number) => Data::Integer(number.as_i64()?),
        Json::String(text) => Data::Text(text.clone()),
        Json::Array(list) => Data::List(list.iter().map(to_data).collect::<Option<_>>()?),
        Json::Object(table) => match table.get("base64") {
            Some(Json::String(text)) if table.len() == 1 => Data::Bytes(BASE64.decode(text.as_bytes()).ok()?),
            _ => Data::Table(to_table(table)?),
        },
        Json::Null => return None,
    })
}

pub(super) fn to_table(table: &Map<String, Json>) -> Option<BTreeMap<String, Data>> {
    table.iter().map(|(name, json)| Some((name.clone(), to_data(json)?))).collect()
}

pub(super) fn text(json: &Json, name: &str) -> Option<String> {
    json.get(name)?.as_str().map(str::to_owned)
}

pub(super) fn guid(json: &Json, name: &str) -> Option<Guid> {
    json.get(name)?.as_str()?.parse().ok()
}

const KINDS: [(&str, CalloutKind); 3] = [
    ("terminating", CalloutKind::Terminating),
    ("inspection", CalloutKind::Inspection),
    ("unknown", CalloutKind::Unknown),
];

pub(super) fn of_filter(filter: &Filter) -> Json {
    let kind = KINDS.iter().find(|(_, kind)| *kind == filter.kind).map_or("", |(name, _)| name);
    let context = filter.provider_context.as_ref().map(
        |context| json!({"key": context.key.to_string(), "name": context.name, "data": Json::from(&context.data)}),
    );
    json!({
        "id": filter.id, "key": filter.key.to_string(), "name": filter.name, "layer": filter.layer.name(),
        "sublayer": filter.sublayer.to_string(), "weight": filter.weight, "kind": kind, "flags": filter.flags.bits(),
        "context": context,
    })
}

pub(super) fn to_filter(json: &Json) -> Option<Filter> {
    let layer = Layer::find(json.get("layer")?.as_str()?)?.id;
    let kind = json.get("kind")?.as_str()?;
    let kind = KINDS.iter().find(|(name, _)| *name == kind)?.1;
    let flags = u32::try_from(json.get("flags")?.as_u64()?).ok()?;
    let filter = Filter::new(json.get("id")?.as_u64()?, guid(json, "key")?, text(json, "name")?, layer, kind)
        .with_flags(FilterFlags::from_bits_retain(flags))
        .in_sublayer(guid(json, "sublayer")?, json.get("weight")?.as_u64()?);
    Some(match json.get("context")? {
        Json::Null => filter,
        context => filter.with_context(ProviderContext {
            key: guid(context, "key")?,
            name: text(context, "name")?,
            data: to_data(context.get("data")?)?,
        }),
    })
}

pub(super) fn of_report(report: &Report) -> Json {
    match report {
        Report::Callout(entries) => json!({"entries": of_table(entries)}),
        Report::Dns(dns) => json!({"dns": {
            "name": dns.name, "type": dns.record_type, "answers": dns.answers, "code": dns.code, "latency_us": dns.latency_us,
            "server": dns.server, "blocked": dns.action == Action::Block,
            "process": dns.process.as_ref().map(|(number, path)| json!({"pid": number, "path": path})),
        }}),
    }
}

pub(super) fn to_report(json: &Json) -> Option<Report> {
    if let Some(Json::Object(entries)) = json.get("entries") {
        return Some(Report::Callout(to_table(entries)?));
    }
    let dns = json.get("dns")?;
    let answers = dns.get("answers")?.as_array()?.iter().map(|answer| answer.as_str().map(str::to_owned));
    let process = match dns.get("process")? {
        Json::Null => None,
        process => Some((u32::try_from(process.get("pid")?.as_u64()?).ok()?, text(process, "path"))),
    };
    Some(Report::Dns(DnsReport {
        name: text(dns, "name")?,
        record_type: text(dns, "type")?,
        answers: answers.collect::<Option<_>>()?,
        code: text(dns, "code"),
        latency_us: dns.get("latency_us")?.as_u64(),
        server: text(dns, "server")?,
        action: if dns.get("blocked")?.as_bool()? { Action::Block } else { Action::Permit },
        process,
    }))
}
