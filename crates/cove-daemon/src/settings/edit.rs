//! Changes one key in the text of a settings file and leaves everything else, comments above all, as it is.
//!
//! The reference is `toml_edit`'s result. Where a commented-out line of the template can be filled in, or a line
//! commented out again, the file stays nicer to read; that is done instead when it comes to the same values.

use super::{
    keys::{Field, Key},
    read::{Problem, read},
    values::Values,
};
use serde_json::Value;
use std::path::Path;
use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table};

/// The file's text with `key` set to `value`, or unset, and what it then says.
pub(super) fn edit(
    text: &str,
    key: &Key,
    value: Option<&Value>,
    home: Option<&Path>,
) -> Result<(String, Values), Problem> {
    let general = |what: String| Problem { line: None, what };
    let mut document: DocumentMut = text.parse().map_err(|_| {
        read(text, home)
            .err()
            .unwrap_or_else(|| general("this is not TOML".into()))
    })?;
    let item = if let Some(value) = value {
        let value = coerced(key, value);
        let refusal = || general(format!("`{key}` cannot be {value}; it takes {}", key.accepts()));
        let item = to_toml(&value).ok_or_else(refusal)?;
        place(&mut document, key, item.clone()).ok_or_else(refusal)?;
        Some(item)
    } else {
        remove(&mut document, key);
        None
    };
    let edited = document.to_string();
    let mut values = read(&edited, home).map_err(|mut problem| {
        // The line is one of the edited text, which nobody sees unless it was in the file before.
        if read(text, home).is_ok() {
            problem.line = None;
        }
        problem
    })?;
    let nicer = match &item {
        Some(item) => uncomment(text, key, item),
        None => comment_out(text, key),
    };
    if let Some(nicer) = nicer
        && let Ok(same) = read(&nicer, home)
        && same == values
    {
        values = same;
        return Ok((nicer, values));
    }
    Ok((edited, values))
}

/// Options of daemon.json that are texts, or hold nothing but texts, even where these look like something else.
const TEXTS: [&str; 5] = [
    "default-network-opts",
    "default-shm-size",
    "log-opts",
    "proxies",
    "runtimes",
];

/// A client may send every value as text; where text is not what the key takes, the text is read.
fn coerced(key: &Key, value: &Value) -> Value {
    let Some(text) = value.as_str() else {
        return value.clone();
    };
    match key {
        Key::Machine(Field::Cpus | Field::ForeignProcessors)
        | Key::ProxyContainers
        | Key::Override(_, Field::Cpus | Field::ForeignProcessors)
        | Key::WebPort
        | Key::Shares
        | Key::Engine => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        // What daemon.json takes is a switch or a number where it looks like one.
        Key::EngineOption(option)
            if option
                .first()
                .is_none_or(|first| !TEXTS.contains(&first.as_str())) =>
        {
            match serde_json::from_str(text) {
                Ok(plain @ (Value::Bool(_) | Value::Number(_))) => plain,
                _ => value.clone(),
            }
        }
        _ => value.clone(),
    }
}

fn to_toml(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items = items.iter().map(to_toml).collect::<Option<Array>>()?;
            toml_edit::Value::Array(items)
        }
        Value::Object(pairs) => {
            let mut table = InlineTable::new();
            for (key, value) in pairs {
                table.insert(key, to_toml(value)?);
            }
            toml_edit::Value::InlineTable(table)
        }
    })
}

/// Sets the item at the key's path, making tables on the way; nothing when something else than a table is there.
fn place(document: &mut DocumentMut, key: &Key, value: toml_edit::Value) -> Option<()> {
    let path = key.path();
    let (last, tables) = path.split_last()?;
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for part in tables {
        if !table.contains_key(part) {
            let mut fresh = Table::new();
            fresh.set_implicit(*part == "machines");
            table.insert(part, Item::Table(fresh));
        }
        table = table.get_mut(part)?.as_table_like_mut()?;
    }
    match (table.get_mut(last), value) {
        // A table stays one: `[engine]` does not become `engine = { … }`.
        (Some(Item::Table(old)), toml_edit::Value::InlineTable(new)) => {
            old.clear();
            old.extend(new.iter().map(|(key, value)| (key.to_owned(), value.clone())));
        }
        (Some(Item::Value(old)), mut new) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        (_, value) => {
            table.insert(last, Item::Value(value));
        }
    }
    Some(())
}

fn remove(document: &mut DocumentMut, key: &Key) {
    let path = key.path();
    let Some((last, tables)) = path.split_last() else {
        return;
    };
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for part in tables {
        match table.get_mut(part).and_then(Item::as_table_like_mut) {
            Some(inner) => table = inner,
            None => return,
        }
    }
    table.remove(last);
}

/// Fills in the template's `#key = …` line in the key's section.
fn uncomment(text: &str, key: &Key, value: &toml_edit::Value) -> Option<String> {
    let path = key.path();
    let (last, tables) = path.split_last()?;
    let wanted = match tables {
        [] => String::new(),
        _ => format!("[{}]", tables.join(".")),
    };
    let mut section = String::new();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let found = lines.iter().position(|line| {
        if line.starts_with('[') {
            line.trim().clone_into(&mut section);
        }
        let commented = line.strip_prefix('#').map(str::trim_start);
        let rest = commented
            .and_then(|rest| rest.strip_prefix(last))
            .map(str::trim_start);
        section == wanted && rest.is_some_and(|rest| rest.starts_with('='))
    })?;
    lines[found] = format!("{last} = {}", value.to_string().trim());
    Some(lines.join("\n") + "\n")
}

/// Comments out the lines that set the key.
fn comment_out(text: &str, key: &Key) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let path = key.path();
    let (last, tables) = path.split_last()?;
    let mut table: &dyn toml_edit::TableLike = document.as_table();
    for part in tables {
        table = table.get(part)?.as_table_like()?;
    }
    let (key, item) = table.get_key_value(last)?;
    let (start, end) = (key.span()?.start, item.span()?.end);
    let mut offset = 0;
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.split_inclusive('\n') {
        if offset < end && offset + line.len() > start {
            out.push('#');
        }
        out.push_str(line);
        offset += line.len();
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::template::template;
    use serde_json::json;

    fn set(text: &str, key: &str, value: &Value) -> Result<String, Problem> {
        edit(text, &Key::parse(key).unwrap(), Some(value), None).map(|(text, _)| text)
    }

    fn unset(text: &str, key: &str) -> String {
        edit(text, &Key::parse(key).unwrap(), None, None).unwrap().0
    }

    #[test]
    fn comments_and_order_survive_a_change() {
        let text = "# mine\n[machine] # here\n# few\ncpus = 2 # two\nmemory = \"1 GiB\"\n";
        let changed = set(text, "machine.cpus", &json!(3)).unwrap();
        assert_eq!(changed, text.replace("cpus = 2 # two", "cpus = 3 # two"));
    }

    #[test]
    fn a_key_of_the_template_is_filled_in_where_it_is_documented() {
        let text = template();
        let changed = set(&text, "machine.cpus", &json!(3)).unwrap();
        let line = text.lines().position(|line| line.starts_with("#cpus")).unwrap();
        assert_eq!(changed.lines().nth(line), Some("cpus = 3"));
        assert_eq!(changed.lines().count(), text.lines().count());
        assert!(
            read(&unset(&changed, "machine.cpus"), None)
                .unwrap()
                .machine
                .cpus
                .is_none()
        );
    }

    #[test]
    fn unset_keeps_what_was_said_above_the_key() {
        let text = "[machine]\n# few, because of the fan\ncpus = 2\ndisk = \"8 GiB\"\n";
        assert_eq!(unset(text, "machine.cpus"), text.replace("cpus", "#cpus"));
        assert_eq!(
            unset("machine = { cpus = 2, disk = \"8 GiB\" }\n", "machine.cpus"),
            "machine = { disk = \"8 GiB\" }\n"
        );
        assert_eq!(unset("", "machine.cpus"), "");
    }

    #[test]
    fn every_kind_of_value_can_be_set_and_reads_back() {
        let mut text = template();
        for (key, value) in [
            ("machine.memory", json!("2 GiB")),
            ("machine.cpus", json!("2")),
            ("machines.dev.disk", json!("8 GiB")),
            ("shares", json!([{ "path": "/srv/a b", "read-only": true }])),
            ("engine.log-opts.max-size", json!("5m")),
            ("engine.log-opts.max-file", json!("3")),
            ("engine.debug", json!("true")),
            ("engine.mtu", json!("1400")),
            ("engine.features.containerd-snapshotter", json!("true")),
            ("engine.default-shm-size", json!("1024")),
            ("proxy.no", json!("localhost")),
            ("proxy.containers", json!("true")),
        ] {
            text = set(&text, key, &value).unwrap_or_else(|problem| panic!("{key}: {}", problem.what));
        }
        let values = read(&text, None).unwrap();
        assert_eq!(values.machine.cpus, Some(2));
        assert_eq!(values.machines["dev"].disk, Some(8 << 30));
        assert!(values.shares.unwrap()[0].read_only);
        assert_eq!(
            values.engine["log-opts"],
            json!({ "max-size": "5m", "max-file": "3" })
        );
        assert_eq!(
            (&values.engine["debug"], &values.engine["mtu"]),
            (&json!(true), &json!(1400))
        );
        assert_eq!(
            values.engine["features"],
            json!({ "containerd-snapshotter": true })
        );
        assert_eq!(values.engine["default-shm-size"], "1024");
        assert_eq!(values.proxy.no.as_deref(), Some("localhost"));
        text = set(&text, "engine", &json!({ "experimental": true })).unwrap();
        assert_eq!(read(&text, None).unwrap().engine.len(), 1);
    }

    #[test]
    fn a_bad_value_is_refused_and_names_its_key() {
        for (key, value) in [
            ("machine.cpus", json!(0)),
            ("machine.cpus", json!(null)),
            ("machine.memory", json!("lots")),
            ("engine.hosts", json!(["tcp://0.0.0.0"])),
            ("engine.debug", json!(null)),
        ] {
            let problem = set(&template(), key, &value).unwrap_err();
            assert!(problem.what.contains(key), "{}", problem.what);
            assert_eq!(problem.line, None);
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_left_alone() {
        let problem = set("[machine\n", "machine.cpus", &json!(1)).unwrap_err();
        assert_eq!(problem.line, Some(1));
    }
}
