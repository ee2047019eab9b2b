//! The objects that filters refer to: the provider, sublayers, provider contexts and callouts.

use std::collections::{BTreeMap, HashMap};

use data_encoding::BASE64;

use crate::{
    Callout, CalloutBuilder, CalloutFlags, CalloutServer, Data, Guid, ObjectError, Provider, ProviderBuilder,
    ProviderContext, ProviderContextBuilder, ProviderContextFlags, ProviderFlags, Sublayer, SublayerBuilder,
    SublayerFlags, builtin, names as near,
};

use super::diagnostic::{Diagnostic, Span};
use super::reader::{Reader, from_model, with};
use super::tree::{Node, Table, Tree};

/// How deeply data may be nested. What is read from JSON has to fit into TOML too, whose parser goes 80 levels deep.
const DEEPEST_DATA: usize = 32;

/// The names of the objects of one kind in this file. An object that does not read well has no key, but its name is
/// known.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<String, (Option<Guid>, Span)>,
    by_key: HashMap<Guid, Span>,
}

/// The objects of a file, and how filters find them.
#[derive(Default)]
pub(super) struct Objects {
    pub provider: Option<Provider>,
    pub sublayers: Vec<Sublayer>,
    pub callouts: Vec<Callout>,
    pub provider_contexts: Vec<ProviderContext>,
    pub sublayer_names: Names,
    pub callout_names: Names,
    pub provider_context_names: Names,
}

impl Objects {
    pub fn provider_key(&self) -> Option<Guid> {
        self.provider.as_ref().map(|provider| provider.key)
    }
}

impl Reader<'_> {
    /// Everything in the file but its filters.
    pub fn objects(&mut self, root: &Table) -> Objects {
        let provider = root.get("provider").and_then(|node| self.provider(node));
        let mut objects = Objects { provider, ..Objects::default() };
        let provider = objects.provider_key();
        for (node, table) in self.tables(root, "sublayer") {
            let sublayer = self.sublayer(node, table, provider);
            self.register(&mut objects.sublayer_names, "sublayer", table, sublayer.as_ref().map(|object| object.key));
            objects.sublayers.extend(sublayer);
        }
        for (node, table) in self.tables(root, "provider_context") {
            let context = self.provider_context(node, table, provider);
            let key = context.as_ref().map(|object| object.key);
            self.register(&mut objects.provider_context_names, "provider context", table, key);
            objects.provider_contexts.extend(context);
        }
        for (node, table) in self.tables(root, "callout") {
            let callout = self.callout(node, table, provider);
            self.register(&mut objects.callout_names, "callout", table, callout.as_ref().map(|object| object.key));
            objects.callouts.extend(callout);
        }
        objects
    }

    /// The tables of a list such as `[[filter]]`.
    pub fn tables<'t>(&mut self, root: &'t Table, key: &str) -> Vec<(&'t Node, &'t Table)> {
        let Some(node) = root.get(key) else { return Vec::new() };
        let Tree::List(elements) = &node.value else {
            let title = format!("`{key}` cannot be {}", node.value.kind());
            let error = Diagnostic::error(node.span, title, "expected a list of tables");
            self.report(
                error.help(format!("each {key} begins with `[[{key}]]` in TOML, and is an element of a list in JSON")),
            );
            return Vec::new();
        };
        elements.iter().filter_map(|element| Some((element, self.table(element, &format!("a {key}"))?))).collect()
    }

    /// Makes the name of an object known; a second object of that name or key is an error.
    fn register(&mut self, names: &mut Names, what: &str, table: &Table, key: Option<Guid>) {
        let Some(Node { span, value: Tree::Text(name) }) = table.get("name") else { return };
        if let Some((_, first)) = names.by_name.get(name) {
            let error = Diagnostic::error(*span, format!("duplicate {what} `{name}`"), "this name is taken");
            self.report(error.context(*first, "first given here"));
            return;
        }
        names.by_name.insert(name.clone(), (key, *span));
        let Some(key) = key else { return };
        let span = table.get("key").map_or(*span, |node| node.span);
        if let Some(first) = names.by_key.insert(key, span) {
            let error = Diagnostic::error(span, format!("duplicate key {key}"), format!("another {what} has this key"));
            self.report(error.context(first, "first given here"));
        }
    }

    fn provider(&mut self, node: &Node) -> Option<Provider> {
        let (built, span) = match &node.value {
            Tree::Text(name) => (Provider::builder(name).build(), node.span),
            Tree::Table(table) => {
                self.check_keys(table, "a provider", &["name", "description", "key", "flags", "service"]);
                let flags =
                    ProviderFlags::from_bits_retain(self.object_flags::<ProviderFlags>(table, "FWPM_PROVIDER_FLAG_"));
                let description = self.optional_text(table, "description");
                let service = table.get("service").and_then(|node| self.text(node, "`service`"));
                let key = self.key(table).map(|(key, _)| key);
                let (name, span) = self.name(table, node.span, "a provider")?;
                let mut builder = Provider::builder(name).description(description).flags(flags);
                builder = with(builder, key, ProviderBuilder::key);
                builder = with(builder, service, ProviderBuilder::service_name);
                (builder.build(), span)
            }
            _ => return self.wrong_kind(node, "`provider`", "a name, or a table with a `name`"),
        };
        self.built(built, span)
    }

    fn built<T>(&mut self, built: Result<T, ObjectError>, span: Span) -> Option<T> {
        match built {
            Ok(object) => Some(object),
            Err(error) => self.fail(from_model(span, "here", &error)),
        }
    }

    /// The bits of `flags`, by the names of a type of flags.
    pub fn object_flags<F: bitflags::Flags<Bits = u32>>(&mut self, table: &Table, prefix: &str) -> u32 {
        let known: Vec<_> = F::FLAGS.iter().map(|flag| (flag.name(), flag.value().bits())).collect();
        self.flags(table, prefix, &known)
    }

    fn sublayer(&mut self, node: &Node, table: &Table, provider: Option<Guid>) -> Option<Sublayer> {
        self.check_keys(table, "a sublayer", &["name", "description", "key", "flags", "weight"]);
        let flags = self.object_flags::<SublayerFlags>(table, "FWPM_SUBLAYER_FLAG_");
        let description = self.optional_text(table, "description");
        let weight = match table.get("weight") {
            Some(node) => self.integer(node, "the weight of a sublayer", u16::MAX.into()),
            None => Some(0),
        };
        let key = self.key(table).map(|(key, _)| key);
        let (name, span) = self.name(table, node.span, "a sublayer")?;
        let weight = u16::try_from(weight?).unwrap_or(u16::MAX);
        let mut builder = Sublayer::builder(name).description(description).weight(weight);
        builder = builder.flags(SublayerFlags::from_bits_retain(flags));
        builder = with(builder, provider, SublayerBuilder::provider);
        builder = with(builder, key, SublayerBuilder::key);
        self.built(builder.build(), span)
    }

    fn provider_context(&mut self, node: &Node, table: &Table, provider: Option<Guid>) -> Option<ProviderContext> {
        self.check_keys(table, "a provider context", &["name", "description", "key", "flags", "data"]);
        let flags = self.object_flags::<ProviderContextFlags>(table, "FWPM_PROVIDER_CONTEXT_FLAG_");
        let description = self.optional_text(table, "description");
        let data = match table.get("data") {
            Some(node) => self.data(node),
            None => Some(Data::default()),
        };
        let key = self.key(table).map(|(key, _)| key);
        let (name, span) = self.name(table, node.span, "a provider context")?;
        let mut builder = ProviderContext::builder(name, data?).description(description);
        builder = builder.flags(ProviderContextFlags::from_bits_retain(flags));
        builder = with(builder, provider, ProviderContextBuilder::provider);
        builder = with(builder, key, ProviderContextBuilder::key);
        self.built(builder.build(), span)
    }

    fn callout(&mut self, node: &Node, table: &Table, provider: Option<Guid>) -> Option<Callout> {
        let known = ["name", "description", "key", "flags", "layer", "uses", "host", "user", "settings"];
        self.check_keys(table, "a callout", &known);
        let flags = self.object_flags::<CalloutFlags>(table, "FWPM_CALLOUT_FLAG_");
        let description = self.optional_text(table, "description");
        let layer = table.get("layer").map(|node| self.one_layer(node));
        let server = self.callout_server(table);
        let settings = match table.get("settings") {
            Some(node) => self.settings(node),
            None => Some(BTreeMap::new()),
        };
        let key = self.key(table).map(|(key, _)| key);
        let (name, span) = self.name(table, node.span, "a callout")?;
        let mut builder = Callout::builder(name).description(description).server(server?).settings(settings?);
        builder = builder.flags(CalloutFlags::from_bits_retain(flags));
        if let Some(layer) = layer {
            builder = builder.layer(layer?);
        }
        builder = with(builder, provider, CalloutBuilder::provider);
        builder = with(builder, key, CalloutBuilder::key);
        self.built(builder.build(), span)
    }

    /// `uses`, or `host` with `user`.
    fn callout_server(&mut self, table: &Table) -> Option<CalloutServer> {
        let user = match table.entry("user") {
            Some((key, _)) if table.get("host").is_none() => {
                let label = "there is no executable to run as this user";
                return self.fail(Diagnostic::error(key.span, "`user` without `host`", label));
            }
            Some((_, node)) => Some(self.host_user(node)?),
            None => None,
        };
        match (table.entry("uses"), table.entry("host")) {
            (Some((uses, _)), Some((host, _))) => {
                let error = Diagnostic::error(host.span, "`host` beside `uses`", "a callout is served by one of them");
                self.fail(error.context(uses.span, "the other"))
            }
            (Some((_, node)), None) => Some(CalloutServer::BuiltIn(self.text(node, "`uses`")?.to_owned())),
            (None, Some((_, node))) => Some(CalloutServer::Host { path: self.text(node, "`host`")?.to_owned(), user }),
            (None, None) => Some(CalloutServer::Registered),
        }
    }

    fn host_user(&mut self, node: &Node) -> Option<u32> {
        match &node.value {
            Tree::Text(name) => self.user(node, name),
            _ => self.integer(node, "`user`", u32::MAX.into()).and_then(|uid| uid.try_into().ok()),
        }
    }

    /// Settings: a table of data.
    fn settings(&mut self, node: &Node) -> Option<BTreeMap<String, Data>> {
        self.table(node, "`settings`")?;
        match self.data(node)? {
            Data::Table(settings) => Some(settings),
            _ => self.fail(Diagnostic::error(node.span, "`settings` cannot be bytes", "expected a table")),
        }
    }

    /// Data as they are handed to a callout; a table with the one key `base64` stands for bytes.
    fn data(&mut self, node: &Node) -> Option<Data> {
        self.data_within(node, DEEPEST_DATA)
    }

    fn data_within(&mut self, node: &Node, levels: usize) -> Option<Data> {
        let Some(levels) = levels.checked_sub(1) else {
            let label = format!("data have at most {DEEPEST_DATA} levels");
            return self.fail(Diagnostic::error(node.span, "nested too deeply", label));
        };
        match &node.value {
            Tree::Boolean(boolean) => Some(Data::Boolean(*boolean)),
            Tree::Text(text) => Some(Data::Text(text.clone())),
            Tree::Integer(number) => match i64::try_from(*number) {
                Ok(number) => Some(Data::Integer(number)),
                Err(_) => {
                    let title = format!("{number} is out of range");
                    self.fail(Diagnostic::error(node.span, title, "data hold integers of 64 bits with sign"))
                }
            },
            Tree::List(elements) => {
                let all: Vec<Option<Data>> = elements.iter().map(|element| self.data_within(element, levels)).collect();
                all.into_iter().collect::<Option<_>>().map(Data::List)
            }
            Tree::Table(Table { entries }) => match entries.as_slice() {
                [(key, inner @ Node { value: Tree::Text(text), .. })] if key.name == "base64" => {
                    match BASE64.decode(text.as_bytes()) {
                        Ok(bytes) => Some(Data::Bytes(bytes)),
                        Err(error) => self.fail(Diagnostic::error(inner.span, "not base64", error.to_string())),
                    }
                }
                _ => {
                    let all: Vec<_> = entries
                        .iter()
                        .map(|(key, node)| Some((key.name.clone(), self.data_within(node, levels)?)))
                        .collect();
                    all.into_iter().collect::<Option<_>>().map(Data::Table)
                }
            },
            Tree::Null | Tree::Float(_) | Tree::DateTime(_) => {
                let expected = "a string, an integer, a boolean, a list, a table, or `{ base64 = \"…\" }`";
                self.wrong_kind(node, "data", expected)
            }
        }
    }

    /// The key of the sublayer of that name in this file, of a built-in one, or the GUID itself.
    pub fn find_sublayer(&mut self, objects: &Objects, node: &Node) -> Option<Guid> {
        let name = self.text(node, "`sublayer`")?;
        let built_in = builtin::find_sublayer(name).map(|sublayer| sublayer.key);
        let known = builtin::sublayers().iter().map(|sublayer| sublayer.name);
        self.find(&objects.sublayer_names, "sublayer", node.span, name, built_in, known)
    }

    /// The key of the callout of that name in this file, of a built-in one, or the GUID itself.
    pub fn find_callout(&mut self, objects: &Objects, node: &Node) -> Option<Guid> {
        let name = self.text(node, "`callout`")?;
        let built_in = builtin::find_callout(name).map(|callout| callout.key);
        let known = builtin::callouts().iter().map(|callout| callout.name);
        self.find(&objects.callout_names, "callout", node.span, name, built_in, known)
    }

    /// The key of the provider context of that name in this file, of a built-in one, or the GUID itself.
    pub fn find_provider_context(&mut self, objects: &Objects, node: &Node) -> Option<Guid> {
        let name = self.text(node, "`context`")?;
        let built_in = builtin::find_provider_context(name).map(|context| context.key);
        let known = builtin::provider_contexts().iter().map(|context| context.name);
        self.find(&objects.provider_context_names, "provider context", node.span, name, built_in, known)
    }

    fn find(
        &mut self,
        names: &Names,
        what: &str,
        span: Span,
        name: &str,
        built_in: Option<Guid>,
        known: impl Iterator<Item = &'static str>,
    ) -> Option<Guid> {
        if let Some((key, _)) = names.by_name.get(name) {
            return *key;
        }
        if built_in.is_some() {
            return built_in;
        }
        if let Ok(key) = name.parse() {
            if !names.by_key.contains_key(&key) {
                self.elsewhere.push(key);
            }
            return Some(key);
        }
        let title = format!("unknown {what} `{name}`");
        let error = Diagnostic::error(span, title, format!("neither this file nor the platform has this {what}"));
        let mut candidates: Vec<&str> = names.by_name.keys().map(String::as_str).collect();
        candidates.sort_unstable();
        for built_in in known {
            candidates.push(built_in);
        }
        let nearest = near::nearest(name, candidates);
        self.fail(match nearest {
            Some(_) => error.did_you_mean(nearest),
            None => error.help("an object of the running service is named by its GUID"),
        })
    }
}
