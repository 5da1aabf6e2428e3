//! The text of a settings file in which nothing is set and everything is explained.

use super::keys::{Field, Key, Which};

/// The template, made from the table of keys.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "# Cove's settings. A line that begins with # says nothing: take the # away to change what it shows.\n\
         # `cove config get` lists what is in force, `cove config set KEY VALUE` changes this file.\n\n",
    );
    explain(
        &mut text,
        &Key::Shares,
        "shares = [{ path = \"~/src\" }, { path = \"/srv/data\", read-only = true }]",
    );
    text.push_str("\n# Every machine, unless [machines.NAME] says otherwise.\n[machine]\n");
    for field in Field::ALL {
        explain(&mut text, &Key::Machine(field), example(field));
    }
    text.push_str(
        "\n# One machine, with the same keys as [machine].\n#[machines.dev]\n#cpus = 2\n\
         \n# Options for the Docker engine, merged into its daemon.json. What Cove has to decide itself is refused.\n\
         [engine]\n#registry-mirrors = [\"https://mirror.example\"]\n#debug = true\n\n[proxy]\n",
    );
    for which in Which::ALL {
        let line = match which {
            Which::Http => "http = \"http://proxy.example:3128\"",
            Which::Https => "https = \"http://proxy.example:3128\"",
            Which::No => "no = \"localhost,127.0.0.1,.example\"",
        };
        explain(&mut text, &Key::Proxy(which), line);
    }
    explain(&mut text, &Key::ProxyContainers, "containers = true");
    text.push_str("\n[web]\n");
    explain(&mut text, &Key::WebPort, "port = 2683");
    text
}

fn example(field: Field) -> &'static str {
    match field {
        Field::Backend => "backend = \"auto\"",
        Field::Cpus => "cpus = 4",
        Field::Memory => "memory = \"2 GiB\"",
        Field::Disk => "disk = \"64 GiB\"",
        Field::StopGrace => "stop-grace = \"10 s\"",
        Field::ForeignProcessors => "foreign-processors = true",
    }
}

fn explain(text: &mut String, key: &Key, line: &str) {
    for part in [key.description(), &format!("Takes {}.", key.accepts()), ""] {
        for row in wrapped(part) {
            text.push_str("# ");
            text.push_str(&row);
            text.push('\n');
        }
    }
    text.push('#');
    text.push_str(line);
    text.push('\n');
}

fn wrapped(text: &str) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match rows.last_mut() {
            Some(row) if row.len() + word.len() < 100 => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::{read::read, values::Values};
    use super::*;

    #[test]
    fn the_template_sets_nothing() {
        assert_eq!(read(&template(), None), Ok(Values::default()));
    }

    #[test]
    fn every_example_in_the_template_is_valid_when_it_is_taken_at_its_word() {
        let home = std::path::Path::new("/home/u");
        let text: String = template()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let values = read(&text, Some(home)).unwrap_or_else(|problem| panic!("{problem:?}\n{text}"));
        for key in Key::fixed() {
            assert!(key.is_set(&values), "{key} is not in the template");
        }
    }
}
