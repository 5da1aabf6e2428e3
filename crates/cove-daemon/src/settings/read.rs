//! Reads the text of a settings file, and says precisely what is wrong with one that cannot be used.

use super::{
    keys::{DISK_BOUNDS, Field, MAX_CPUS, MAX_GRACE_S, MEMORY_BOUNDS, Which, backend_named},
    proxy, time,
    values::{MachineValues, Share, Values},
};
use crate::name::MachineName;
use cove_api::size;
use cove_wire::guest_folder;
use serde_json::{Map, Value};
use std::path::{Component, Path, PathBuf};
use toml_edit::{Document, Item, TableLike};

/// What is wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1; absent when the whole file is meant.
    pub(crate) line: Option<usize>,
    /// What is wrong, naming the key, and what would be right.
    pub(crate) what: String,
}

/// Longest settings file, in bytes.
pub(crate) const MAX_FILE: usize = 1 << 20;

/// Options of the engine that Cove needs to set itself, and why.
const RESERVED_OPTIONS: [(&str, &str); 15] = [
    ("hosts", "Cove forwards the engine's socket"),
    ("data-root", "the data disk is mounted there"),
    ("exec-root", "the guest's layout decides it"),
    ("pidfile", "the guest's layout decides it"),
    ("group", "the guest's layout decides it"),
    ("containerd", "Cove starts containerd"),
    ("containerd-namespace", "Cove starts containerd"),
    ("storage-driver", "the image is made for one"),
    ("userland-proxy", "Cove forwards published ports"),
    ("userland-proxy-path", "Cove forwards published ports"),
    ("tls", "the engine listens on no network"),
    ("tlsverify", "the engine listens on no network"),
    ("proxies", "set proxy.http, proxy.https and proxy.no instead"),
    ("shutdown-timeout", "set machine.stop-grace instead"),
    ("live-restore", "a machine that stops has to stop its containers"),
];

/// Whether a folder may be shared; `text` is how it was given.
pub(crate) fn check_share(path: &Path, text: &str) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("the share `{shown}` is not an absolute path"));
    }
    let plain = path.components().all(|part| {
        matches!(
            part,
            Component::Normal(_) | Component::RootDir | Component::Prefix(_)
        )
    });
    if !plain || text.chars().any(char::is_control) {
        return Err(format!(
            "the share `{shown}` has `..` or a control character in its path"
        ));
    }
    if path.parent().is_none() {
        return Err(format!(
            "`{shown}` cannot be shared as a whole; share folders in it"
        ));
    }
    if let Some(guest) = guest_folder(path) {
        return Err(format!(
            "`{shown}` cannot be shared, because the guest has its own {guest}"
        ));
    }
    Ok(())
}

/// Reads a settings file's text. `home` stands for `~` at a share's beginning.
pub(crate) fn read(text: &str, home: Option<&Path>) -> Result<Values, Problem> {
    if text.len() > MAX_FILE {
        return Err(Problem {
            line: None,
            what: format!("the file is longer than {MAX_FILE} bytes"),
        });
    }
    let document = Document::parse(text).map_err(|error| Problem {
        line: error.span().map(|span| line_of(text, span.start)),
        what: format!("this is not TOML: {}", error.message().replace('\n', ", ")),
    })?;
    let reader = Reader { text, home };
    reader.file(document.as_table())
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|&byte| byte == b'\n').count()
}

struct Reader<'a> {
    text: &'a str,
    home: Option<&'a Path>,
}

impl Reader<'_> {
    fn file(&self, table: &dyn TableLike) -> Result<Values, Problem> {
        let mut values = Values::default();
        for (key, item) in table.iter() {
            match key {
                "machine" => values.machine = self.machine(self.table(table, key, item)?, "machine")?,
                "machines" => {
                    let machines = self.table(table, key, item)?;
                    for (name, item) in machines.iter() {
                        let parsed: MachineName = name
                            .parse()
                            .map_err(|bad| self.problem(machines, name, format!("{bad}")))?;
                        let own = self.table(machines, name, item)?;
                        let own = self.machine(own, &format!("machines.{name}"))?;
                        values.machines.insert(parsed, own);
                    }
                }
                "shares" => values.shares = Some(self.shares(table, item)?),
                "engine" => values.engine = self.engine(self.table(table, key, item)?)?,
                "proxy" => self.proxy(self.table(table, key, item)?, &mut values)?,
                "web" => values.web_port = self.web(self.table(table, key, item)?)?,
                _ => {
                    let known = "machine, machines, shares, engine, proxy and web";
                    return Err(self.problem(table, key, format!("there is no `{key}`; there are {known}")));
                }
            }
        }
        Ok(values)
    }

    fn problem(&self, table: &dyn TableLike, key: &str, what: String) -> Problem {
        let span = table
            .get_key_value(key)
            .and_then(|(key, item)| key.span().or_else(|| item.span()));
        Problem {
            line: span.map(|span| line_of(self.text, span.start)),
            what,
        }
    }

    fn table<'i>(
        &self,
        parent: &dyn TableLike,
        key: &str,
        item: &'i Item,
    ) -> Result<&'i dyn TableLike, Problem> {
        item.as_table_like()
            .ok_or_else(|| self.problem(parent, key, format!("`{key}` has to be a table, `[{key}]`")))
    }

    fn machine(&self, table: &dyn TableLike, prefix: &str) -> Result<MachineValues, Problem> {
        let mut values = MachineValues::default();
        for (name, item) in table.iter() {
            let Some(field) = Field::named(name) else {
                let known: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
                let what = format!("there is no `{prefix}.{name}`; there are {}", known.join(", "));
                return Err(self.problem(table, name, what));
            };
            if set_field(&mut values, field, item).is_none() {
                let what = format!(
                    "`{prefix}.{name}` is {}; it takes {}",
                    shown(item),
                    field.accepts()
                );
                return Err(self.problem(table, name, what));
            }
        }
        Ok(values)
    }

    fn shares(&self, top: &dyn TableLike, item: &Item) -> Result<Vec<Share>, Problem> {
        let problem = |what: String| self.problem(top, "shares", what);
        let tables: Vec<&dyn TableLike> = if let Some(tables) = item.as_array_of_tables() {
            tables.iter().map(|table| table as &dyn TableLike).collect()
        } else {
            let list = item
                .as_array()
                .map(|array| array.iter().map(|value| value.as_inline_table()).collect());
            let Some(Some(list)) = list.map(|list: Vec<_>| list.into_iter().collect::<Option<Vec<_>>>())
            else {
                let form = "{ path = \"/absolute/path\", read-only = false }";
                return Err(problem(format!("`shares` has to be a list of {form}")));
            };
            list.into_iter().map(|table| table as &dyn TableLike).collect()
        };
        let mut shares: Vec<Share> = Vec::new();
        for table in tables {
            let mut path = None;
            let mut read_only = false;
            for (key, item) in table.iter() {
                match (key, item.as_str(), item.as_bool()) {
                    ("path", Some(text), _) => path = Some(self.share_path(text).map_err(problem)?),
                    ("read-only", _, Some(flag)) => read_only = flag,
                    _ => {
                        return Err(problem(format!(
                            "`{key} = {}` cannot be said of a share; it has a `path` (text) and `read-only` \
                             (true or false)",
                            shown(item)
                        )));
                    }
                }
            }
            let path = path.ok_or_else(|| problem("a share has no `path`".into()))?;
            if shares.iter().any(|other| other.path == path) {
                return Err(problem(format!("`{}` is shared twice", path.display())));
            }
            shares.push(Share { path, read_only });
        }
        Ok(shares)
    }

    fn share_path(&self, text: &str) -> Result<PathBuf, String> {
        let path = match (text.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        };
        check_share(&path, text)?;
        // Collecting the components drops doubled and trailing separators.
        Ok(path.components().collect())
    }

    fn engine(&self, table: &dyn TableLike) -> Result<Map<String, Value>, Problem> {
        let mut map = Map::new();
        for (key, item) in table.iter() {
            if let Some((_, why)) = RESERVED_OPTIONS.iter().find(|(owned, _)| *owned == key) {
                let what = format!("`engine.{key}` cannot be set: {why}");
                return Err(self.problem(table, key, what));
            }
            let value = item_to_json(item).ok_or_else(|| {
                let what =
                    format!("`engine.{key}` holds a value that JSON does not have (a date, or no number)");
                self.problem(table, key, what)
            })?;
            map.insert(key.to_owned(), value);
        }
        Ok(map)
    }

    fn proxy(&self, table: &dyn TableLike, values: &mut Values) -> Result<(), Problem> {
        for (key, item) in table.iter() {
            if key == "containers" {
                let accepts = super::keys::Key::ProxyContainers.accepts();
                let why = format!("`proxy.containers` is not valid; it takes {accepts}");
                let wanted = item.as_bool().ok_or_else(|| self.problem(table, key, why))?;
                values.proxy.containers = Some(wanted);
                continue;
            }
            let Some(which) = Which::named(key) else {
                return Err(self.problem(
                    table,
                    key,
                    format!("there is no `proxy.{key}`; there are http, https, no, containers"),
                ));
            };
            let good = item.as_str().filter(|text| match which {
                Which::No => proxy::is_list(text),
                Which::Http | Which::Https => text.is_empty() || proxy::is_url(text),
            });
            let Some(text) = good else {
                let accepts = super::keys::Key::Proxy(which).accepts();
                // Not shown, since it may hold a password.
                return Err(self.problem(
                    table,
                    key,
                    format!("`proxy.{key}` is not valid; it takes {accepts}"),
                ));
            };
            let slot = match which {
                Which::Http => &mut values.proxy.http,
                Which::Https => &mut values.proxy.https,
                Which::No => &mut values.proxy.no,
            };
            *slot = Some(text.to_owned());
        }
        Ok(())
    }

    fn web(&self, table: &dyn TableLike) -> Result<Option<u16>, Problem> {
        let mut port = None;
        for (key, item) in table.iter() {
            if key != "port" {
                let why = format!("there is no `web.{key}`; there is port");
                return Err(self.problem(table, key, why));
            }
            let number = item.as_integer().and_then(|number| u16::try_from(number).ok());
            let accepts = super::keys::Key::WebPort.accepts();
            port = Some(number.ok_or_else(|| {
                self.problem(table, key, format!("`web.port` is not valid; it takes {accepts}"))
            })?);
        }
        Ok(port)
    }
}

/// Sets one value of a machine; nothing when the item is not one that the field accepts.
fn set_field(values: &mut MachineValues, field: Field, item: &Item) -> Option<()> {
    let size_within = |(least, most): (u64, u64)| {
        let bytes = size::parse(item.as_str()?)?;
        (least..=most).contains(&bytes).then_some(bytes >> 20 << 20)
    };
    match field {
        Field::Backend => values.backend = Some(backend_named(item.as_str()?)?),
        Field::Cpus => {
            let cpus = u32::try_from(item.as_integer()?).ok()?;
            values.cpus = Some((1..=MAX_CPUS).contains(&cpus).then_some(cpus)?);
        }
        Field::Memory => values.memory = Some(size_within(MEMORY_BOUNDS)?),
        Field::Disk => values.disk = Some(size_within(DISK_BOUNDS)?),
        Field::ForeignProcessors => values.foreign_processors = Some(item.as_bool()?),
        Field::StopGrace => {
            let grace = time::parse(item.as_str()?)?;
            values.stop_grace = Some((grace.as_secs() <= MAX_GRACE_S).then_some(grace)?);
        }
    }
    Some(())
}

fn shown(item: &Item) -> String {
    let text = item.to_string();
    let text = text.trim();
    if text.chars().count() > 40 || text.contains('\n') {
        format!(
            "{}…",
            text.chars()
                .take(40)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect::<String>()
        )
    } else {
        text.to_owned()
    }
}

fn item_to_json(item: &Item) -> Option<Value> {
    if let Some(table) = item.as_table_like() {
        let pairs = table
            .iter()
            .map(|(key, item)| Some((key.to_owned(), item_to_json(item)?)));
        return pairs.collect::<Option<Map<_, _>>>().map(Value::Object);
    }
    if let Some(tables) = item.as_array_of_tables() {
        let items = tables
            .iter()
            .map(|table| item_to_json(&Item::Table(table.clone())));
        return items.collect::<Option<Vec<_>>>().map(Value::Array);
    }
    match item.as_value()? {
        toml_edit::Value::String(text) => Some(text.value().as_str().into()),
        toml_edit::Value::Integer(number) => Some((*number.value()).into()),
        toml_edit::Value::Float(number) => serde_json::Number::from_f64(*number.value()).map(Value::Number),
        toml_edit::Value::Boolean(flag) => Some((*flag.value()).into()),
        toml_edit::Value::Array(array) => array
            .iter()
            .map(|value| item_to_json(&Item::Value(value.clone())))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        toml_edit::Value::Datetime(_) | toml_edit::Value::InlineTable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn problem(text: &str) -> Problem {
        read(text, None).unwrap_err()
    }

    #[test]
    fn a_full_file_is_read() {
        let text = r#"
            shares = [{ path = "~/src//x/" }, { path = "/srv", read-only = true }]
            [machine]
            backend = "emulated"
            cpus = 3
            memory = "2 GiB"
            disk = "32 GiB"
            stop-grace = "30 s"
            [machines.dev]
            cpus = 1
            [engine]
            debug = true
            log-opts.max-size = "5m"
            registry-mirrors = ["https://m"]
            [proxy]
            http = "http://p:3128"
            no = "localhost,.corp"
        "#;
        let values = read(text, Some(Path::new("/home/u"))).unwrap();
        assert_eq!(values.machine.memory, Some(2 << 30));
        assert_eq!(values.machine.stop_grace, Some(Duration::from_secs(30)));
        assert_eq!(values.machines["dev"].cpus, Some(1));
        let shares = values.shares.unwrap();
        assert_eq!(shares[0].path, Path::new("/home/u/src/x"));
        assert!(shares[1].read_only);
        assert_eq!(values.engine["log-opts"]["max-size"], "5m");
        assert_eq!(values.proxy.http.as_deref(), Some("http://p:3128"));
    }

    #[test]
    fn a_bad_value_is_refused_with_line_key_and_what_is_accepted() {
        let found = problem("[machine]\n# a comment\ncpus = 0\n");
        assert_eq!(found.line, Some(3));
        assert!(found.what.contains("`machine.cpus` is 0"), "{}", found.what);
        assert!(found.what.contains("1 to 64"), "{}", found.what);
        for (text, key) in [
            ("machine.cpus = \"two\"", "machine.cpus"),
            ("machine.memory = 4096", "machine.memory"),
            ("machine.memory = \"1 MiB\"", "machine.memory"),
            ("machine.disk = \"99 TiB\"", "machine.disk"),
            ("machine.backend = \"xen\"", "machine.backend"),
            ("machine.stop-grace = \"1 h\"", "machine.stop-grace"),
            ("machines.dev.cpus = -1", "machines.dev.cpus"),
            ("proxy.http = \"p:3128\"", "proxy.http"),
            ("proxy.http = \"http://p\\n\"", "proxy.http"),
            ("engine.since = 1979-05-27", "engine.since"),
        ] {
            let found = problem(text);
            assert_eq!(found.line, Some(1), "{text}");
            assert!(found.what.contains(key), "{text}: {}", found.what);
        }
    }

    #[test]
    fn each_choice_of_a_setting_is_accepted_and_what_is_none_is_refused_with_all_of_them() {
        for field in Field::ALL {
            let name = field.name();
            for choice in field.choices() {
                let values = read(&format!("machine.{name} = \"{choice}\""), None);
                assert!(values.is_ok(), "{name} = {choice}: {values:?}");
            }
        }
        let refused = problem("machine.backend = \"xen\"").what;
        assert!(
            refused.ends_with("it takes \"auto\", \"kvm\" or \"emulated\""),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_known_ones_are_named() {
        let found = problem("[machine]\ncpu = 2\n");
        assert_eq!(found.line, Some(2));
        assert!(
            found.what.contains("`machine.cpu`") && found.what.contains("cpus"),
            "{}",
            found.what
        );
        assert!(problem("machien.cpus = 2").what.contains("machine, machines"));
        assert!(problem("machines.Dev.cpus = 2").what.contains("`Dev`"));
    }

    #[test]
    fn broken_toml_names_its_line() {
        assert_eq!(problem("[machine]\ncpus = \n").line, Some(2));
    }

    #[test]
    fn engine_options_that_cove_owns_are_refused_with_the_reason() {
        for (key, _) in RESERVED_OPTIONS {
            let found = problem(&format!("[engine]\ndebug = true\n{key} = true\n"));
            assert_eq!(found.line, Some(3), "{key}");
            assert!(found.what.contains(key), "{}", found.what);
        }
    }

    #[test]
    fn shares_that_would_hide_the_guest_or_leave_the_path_are_refused() {
        for path in [
            "/",
            "/etc",
            "/usr/local",
            "/var",
            "/var/lib/docker/volumes",
            "/proc/1",
            "relative",
            "~/x",
            "/a/../b",
            "/a\\n",
        ] {
            let found = problem(&format!("shares = [{{ path = \"{path}\" }}]"));
            assert_eq!(found.line, Some(1), "{path}: {}", found.what);
        }
        assert!(
            problem("shares = [{ path = \"/a\" }, { path = \"/a/\" }]")
                .what
                .contains("twice")
        );
        assert!(
            problem("shares = [{ read-only = true }]")
                .what
                .contains("no `path`")
        );
        assert!(problem("shares = [\"/a\"]").what.contains("list of"));
        assert!(
            problem("[[shares]]\npath = \"/a\"\nro = true")
                .what
                .contains("`ro = true`")
        );
    }

    #[test]
    fn a_bad_proxy_is_not_shown_since_it_may_hold_a_password() {
        assert!(!problem("proxy.http = \"user:secret@p\"").what.contains("secret"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = read(&text, None);
        }

        #[test]
        fn arbitrary_values_never_panic(key in "(machine|shares|engine|proxy|web|machines)(\\.[a-z-]{1,9}){0,2}", value in "[-0-9a-z\"\\[\\]{}=., ]{0,30}") {
            let _ = read(&format!("{key} = {value}"), None);
        }
    }
}
