//! The variables that tell builds, and containers where that is wanted, of this computer's proxies, put into requests
//! that do not say otherwise.
//!
//! It is done here because every client comes this way, and because a container then has them where anybody would
//! look: `docker inspect` shows them, and so does `env` in it. A client that sets one of them, in either spelling, has
//! its way. Nothing of a request changes but the place where they are put in.

use super::{mounts::Members, route::Checked};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, HashSet};

/// Variables by their names.
pub(super) type Variables = BTreeMap<String, String>;

/// The body of a request that makes a container or a service, with the variables that it lacks; nothing where there is
/// nothing to change, or the body makes no sense, of which the engine tells better.
pub(super) fn amend_body(kind: Checked, body: &[u8], variables: &Variables) -> Option<Vec<u8>> {
    if variables.is_empty() {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let owner = match kind {
        Checked::Container => text,
        Checked::Service => last(last(text, "TaskTemplate")?, "ContainerSpec")?,
        Checked::Volume | Checked::Build | Checked::Start => return None,
    };
    let (place, insertion) = insertion(owner, variables)?;
    let at = owner.as_ptr().addr() - text.as_ptr().addr() + place.0;
    let end = at + place.1;
    Some([&text[..at], &insertion, &text[end..]].concat().into_bytes())
}

/// The target of a request to build an image, with the variables as build arguments where it has none of them; nothing
/// where there is nothing to change. Dockerfiles need not declare these.
pub(super) fn amend_target(target: &str, variables: &Variables) -> Option<String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    // Clients write a space as forms do; a plus of their own comes encoded.
    let spaced = query.replace('+', "%20");
    let given =
        cove_api::query::pairs(&spaced).find_map(|(key, value)| (key == "buildargs").then_some(value));
    let mut arguments: serde_json::Map<String, Value> = match &given {
        Some(given) if !given.is_empty() => {
            serde_json::from_str::<Option<_>>(given).ok()?.unwrap_or_default()
        }
        _ => serde_json::Map::new(),
    };
    let lacking = lacking(arguments.keys().map(String::as_str), variables);
    if lacking.is_empty() {
        return None;
    }
    arguments.extend(
        lacking
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into())),
    );
    let arguments = cove_api::query::encode(&Value::Object(arguments).to_string());
    let path = target.split('?').next().unwrap_or_default();
    let kept = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("buildargs="));
    let pairs: Vec<String> = kept
        .map(str::to_owned)
        .chain([format!("buildargs={arguments}")])
        .collect();
    Some(format!("{path}?{}", pairs.join("&")))
}

/// Whether a client that sets the variables that `sets` knows has its way with this one. Of `ALL_PROXY` it has where it
/// sets one of the others: programs for which that is empty would take this instead. And of those where it sets
/// `ALL_PROXY`, which they would go before.
pub(super) fn has_its_way(name: &str, sets: impl Fn(&str) -> bool) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let kinds = ["HTTP_PROXY", "HTTPS_PROXY"];
    sets(name)
        || (is("ALL_PROXY") && kinds.into_iter().any(&sets))
        || (kinds.into_iter().any(is) && sets("ALL_PROXY"))
}

/// The variables of which neither spelling is among `given`.
fn lacking<'v, 'g>(
    given: impl Iterator<Item = &'g str>,
    variables: &'v Variables,
) -> Vec<(&'v str, &'v str)> {
    let given: HashSet<String> = given.map(str::to_ascii_uppercase).collect();
    variables
        .iter()
        .filter(|(name, _)| !has_its_way(name, |other| given.contains(&other.to_ascii_uppercase())))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// What to put where into an object with an `Env`: offset and length of what it replaces, and the text.
fn insertion(object: &str, variables: &Variables) -> Option<((usize, usize), String)> {
    let raw = last(object, "Env");
    let given: Vec<String> = match raw {
        Some(raw) => serde_json::from_str::<Option<_>>(raw).ok()?.unwrap_or_default(),
        None => Vec::new(),
    };
    let names = given
        .iter()
        .map(|entry| entry.split('=').next().unwrap_or_default());
    let entries: Vec<String> = lacking(names, variables)
        .into_iter()
        .map(|(name, value)| Value::from(format!("{name}={value}")).to_string())
        .collect();
    if entries.is_empty() {
        return None;
    }
    let entries = entries.join(",");
    let comma = |more: bool| if more { "," } else { "" };
    Some(match raw {
        // Before the client's own, of which the last counts.
        Some(raw) if raw.starts_with('[') => {
            let at = raw.as_ptr().addr() - object.as_ptr().addr() + 1;
            ((at, 0), entries + comma(!given.is_empty()))
        }
        Some(null) => {
            let at = null.as_ptr().addr() - object.as_ptr().addr();
            ((at, null.len()), format!("[{entries}]"))
        }
        None => {
            let at = object.find('{')? + 1;
            let members: Members<'_> = serde_json::from_str(object).ok()?;
            (
                (at, 0),
                format!("\"Env\":[{entries}]{}", comma(!members.is_empty())),
            )
        }
    })
}

/// The value of the last member of this name, which is the one that the engine takes.
fn last<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let members: Members<'a> = serde_json::from_str(object).ok()?;
    members.named(name).last().map(RawValue::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn variables() -> Variables {
        [
            ("HTTP_PROXY", "http://p"),
            ("http_proxy", "http://p"),
            ("NO_PROXY", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn amended(kind: Checked, body: &str) -> Option<Value> {
        let body = amend_body(kind, body.as_bytes(), &variables())?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn a_container_gets_what_it_does_not_set_itself() {
        let all = json!(["HTTP_PROXY=http://p", "NO_PROXY=x", "http_proxy=http://p"]);
        for body in [
            r#"{"Image":"a"}"#,
            r#"{"Image":"a","Env":[]}"#,
            r#"{"Env":null,"Image":"a"}"#,
            "{}",
        ] {
            assert_eq!(amended(Checked::Container, body).unwrap()["Env"], all, "{body}");
        }
        let own = amended(
            Checked::Container,
            r#"{"env":["A=1", "http_proxy="],"Image":"a"}"#,
        )
        .unwrap();
        assert_eq!(own["env"], json!(["NO_PROXY=x", "A=1", "http_proxy="]));
        assert_eq!(own["Image"], "a");
        let full = r#"{"Env":["http_proxy=","no_proxy="]}"#;
        assert_eq!(amended(Checked::Container, full), None);
        assert_eq!(amend_body(Checked::Container, b"{}", &Variables::new()), None);
    }

    #[test]
    fn the_containers_of_a_service_get_them_too() {
        let body = r#"{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"a","Env":["A=1"]}}}"#;
        let spec = amended(Checked::Service, body).unwrap();
        assert_eq!(
            spec["TaskTemplate"]["ContainerSpec"]["Env"],
            json!(["HTTP_PROXY=http://p", "NO_PROXY=x", "http_proxy=http://p", "A=1"])
        );
        assert_eq!(amended(Checked::Service, r#"{"Name":"s"}"#), None);
    }

    #[test]
    fn a_build_gets_them_as_arguments_unless_it_has_its_own() {
        let arguments = |target: &str| {
            let target = amend_target(target, &variables())?;
            let query = target.split_once('?').unwrap().1.to_owned();
            let found: Vec<String> = cove_api::query::pairs(&query)
                .filter_map(|(key, value)| (key == "buildargs").then_some(value))
                .collect();
            assert_eq!(found.len(), 1, "{target}");
            Some((target, serde_json::from_str::<Value>(&found[0]).unwrap()))
        };
        let (target, given) = arguments("/v1.45/build?t=x&version=1").unwrap();
        assert!(
            target.starts_with("/v1.45/build?t=x&version=1&buildargs="),
            "{target}"
        );
        assert_eq!(given["HTTP_PROXY"], "http://p");
        let own = cove_api::query::encode(r#"{"http_proxy":"mine","A":null}"#);
        let (_, given) = arguments(&format!("/build?buildargs={own}&t=y")).unwrap();
        assert_eq!(given, json!({"http_proxy": "mine", "A": null, "NO_PROXY": "x"}));
        let (_, given) = arguments("/build?buildargs=%7B%22A%22%3A+%22b+%2B+c%22%7D").unwrap();
        assert_eq!(given["A"], "b + c", "forms write a space as a plus");
        assert!(arguments("/build").is_some());
        assert_eq!(arguments("/build?buildargs=nonsense"), None);
    }

    #[test]
    fn a_client_that_sets_one_proxy_is_not_told_of_another_for_everything() {
        let variables: Variables = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"]
            .map(|name| (name.to_owned(), "socks5h://p".to_owned()))
            .into();
        assert!(lacking(["https_proxy"].into_iter(), &variables).is_empty());
        assert!(lacking(["all_proxy"].into_iter(), &variables).is_empty());
        assert_eq!(lacking(["http_proxy"].into_iter(), &variables).len(), 2);
        assert_eq!(lacking(["no_proxy"].into_iter(), &variables).len(), 4);
    }

    proptest! {
        #[test]
        fn no_body_or_target_makes_it_panic(text in "\\PC{0,60}") {
            let _ = amend_body(Checked::Container, text.as_bytes(), &variables());
            let _ = amend_body(Checked::Service, text.as_bytes(), &variables());
            let _ = amend_target(&text, &variables());
        }
    }
}
