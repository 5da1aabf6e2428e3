//! Secrets in text that a person is going to give away.
//!
//! What is a secret cannot be known for certain. So it errs towards masking: a version that is hidden costs a question,
//! a password that is shown costs an account. What is masked:
//!
//! - private keys in PEM, from their first line to their last
//! - user and password of an address: `http://user:password@proxy:3128`, with and without its scheme
//! - the value of whatever is named like a secret: `DB_PASSWORD=…`, `"identitytoken": "…"`, `Authorization: …`,
//!   `--password …`
//! - what follows `Bearer` and `Basic`, JSON Web Tokens, and tokens that tell by their first letters whose they are

use serde_json::Value;

/// What stands for a secret.
pub const MASK: &str = "********";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// Parts of names, as their ends: `identitytoken`, `db_password`.
const ENDINGS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "cookie",
];
/// Parts of names that name a secret as they are.
const WHOLE: [&str; 2] = ["auth", "pass"];
/// Parts that do so beside others alone: `PWD` is a folder, `DB_PWD` a password.
const IN_COMPANY: [&str; 3] = ["key", "pwd", "pw"];
/// Names whose values hold spaces.
const WITH_SPACES: [&str; 4] = ["authorization", "cookie", "passphrase", "auth"];
/// How tokens begin that tell whose they are: GitHub's, GitLab's, Docker's, Slack's and Amazon's.
const PREFIXES: [&str; 10] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "dckr_pat_",
    "xoxb-",
    "AKIA",
];
/// A token is no shorter than this; words that merely begin like one are.
const SHORTEST: usize = 16;

/// The text with everything masked that looks like a secret.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // The last lines of a log may begin in the middle of a key.
    let mut inside = match (private(text, BEGIN), private(text, END)) {
        (Some(begin), Some(end)) => end < begin,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if inside {
        masked.push_str(MASK);
        masked.push('\n');
    }
    for whole in text.split_inclusive('\n') {
        let line = whole.trim_end_matches(['\n', '\r']);
        let within = inside;
        let kept = without_private_keys(line, &mut inside);
        if within && kept.is_empty() {
            continue;
        }
        let kept = without_users(&kept);
        let kept = without_bare_users(&kept);
        let kept = without_named_values(&kept);
        masked.push_str(&without_tokens(&kept));
        masked.push_str(&whole[line.len()..]);
    }
    masked
}

/// Masks the strings in a value, and whole values whose key is named like a secret.
pub fn mask_json(value: &mut Value) {
    match value {
        Value::String(text) => *text = mask(text),
        Value::Array(values) => values.iter_mut().for_each(mask_json),
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::Null | Value::Bool(_) => {}
                    value if names_a_secret(key) => *value = MASK.into(),
                    value => mask_json(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Where the next marker of a private key is.
fn private(text: &str, marker: &str) -> Option<usize> {
    let mut markers = text.match_indices(marker);
    let found = markers.find(|&(at, _)| {
        let name = text[at + marker.len()..].split_once("-----");
        name.is_some_and(|(name, _)| !name.contains('\n') && name.contains("PRIVATE KEY"))
    });
    found.map(|(at, _)| at)
}

/// A line, which may lie inside of a key, and whether what follows it does.
fn without_private_keys(line: &str, inside: &mut bool) -> String {
    let mut kept = String::new();
    let mut rest = line;
    loop {
        if *inside {
            let Some(end) = private(rest, END) else {
                return kept;
            };
            let after = &rest[end + END.len()..];
            rest = after.split_once("-----").map_or("", |(_, after)| after);
        } else {
            let Some(begin) = private(rest, BEGIN) else {
                kept.push_str(rest);
                return kept;
            };
            kept.push_str(&rest[..begin]);
            kept.push_str(MASK);
            rest = &rest[begin + BEGIN.len()..];
        }
        *inside = !*inside;
    }
}

fn ends_an_address(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '"' | '\'' | '`')
}

/// `scheme://user:password@…`
fn without_users(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let address = &after[..after.find(ends_an_address).unwrap_or(after.len())];
        let authority = &address[..address.find(['/', '?', '#']).unwrap_or(address.len())];
        // Behind a colon may be a password, with a slash in it.
        let user = if authority.contains(':') {
            address.rfind('@')
        } else {
            authority.rfind('@')
        };
        let done = if let Some(end) = user {
            masked.push_str(MASK);
            end
        } else {
            masked.push_str(authority);
            authority.len()
        };
        rest = &after[done..];
    }
    masked.push_str(rest);
    masked
}

/// `user:password@host`, as some write a proxy.
fn without_bare_users(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    for piece in line.split_inclusive(ends_an_address) {
        masked.push_str(&without_bare_user(piece));
    }
    masked
}

fn without_bare_user(piece: &str) -> String {
    let Some((user, host)) = piece.rsplit_once('@') else {
        return piece.to_owned();
    };
    let digest = host.starts_with("sha256:") || host.starts_with("sha512:");
    if digest || piece.contains("://") || !user.contains(':') {
        return piece.to_owned();
    }
    // What the address is the value of says what it is for.
    match user.split_once('=') {
        Some((name, _)) if !name.contains(':') => format!("{name}={MASK}@{host}"),
        _ => format!("{MASK}@{host}"),
    }
}

/// `name=value`, `"name": "value"`, `--name value`.
fn without_named_values(line: &str) -> String {
    let mut masked = String::with_capacity(line.len());
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = line[from..].find(['=', ':', ' ']) {
        let at = from + found;
        from = at + 1;
        let Some(name) = name_before(line, at) else {
            continue;
        };
        let Some((begin, end)) = value_behind(&line[from..], name) else {
            continue;
        };
        masked.push_str(&line[copied..from + begin]);
        masked.push_str(MASK);
        copied = from + end;
        from = copied;
    }
    masked.push_str(&line[copied..]);
    masked
}

/// The name that ends at a separator, if it is one of a secret.
fn name_before(line: &str, at: usize) -> Option<&str> {
    let before = &line[..at];
    let bare = line[at..].starts_with(' ');
    let before = if bare {
        before
    } else {
        before.trim_end().trim_end_matches(['"', '\'', '\\'])
    };
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    let begin = before.trim_end_matches(is_name).len();
    let name = &before[begin..];
    // With nothing but a space between, only an option has a value.
    (names_a_secret(name) && (!bare || name.starts_with("--"))).then_some(name)
}

/// Where the value begins and ends in what follows the separator; nothing where it has none that is worth hiding.
fn value_behind(text: &str, name: &str) -> Option<(usize, usize)> {
    let value = text.trim_start_matches([' ', '\t', '=', ':', '>']);
    let begin = text.len() - value.len();
    let unescaped = value.trim_start_matches('\\');
    let escapes = value.len() - unescaped.len();
    let (begin, length) = match unescaped.chars().next()? {
        quote @ ('"' | '\'' | '`') => {
            let inner = &unescaped[1..];
            (begin + escapes + 1, quoted(inner, quote, escapes))
        }
        // Where a list or a table ends is not looked for.
        '[' | '{' => (begin, value.len()),
        _ => {
            let name = name.to_ascii_lowercase();
            let long = WITH_SPACES.iter().any(|ending| name.ends_with(ending));
            let ends = |letter: char| matches!(letter, '"' | '\'' | '`') || (!long && letter.is_whitespace());
            (begin, value.find(ends).unwrap_or(value.len()))
        }
    };
    let end = begin + length;
    let value = text[begin..end].trim_end_matches(',');
    let hides_nothing = matches!(value, "" | "null" | "true" | "false" | MASK);
    (!hides_nothing).then_some((begin, end))
}

/// How long a text in quotes is. A quote that has more backslashes before it than the first one had is part of it.
fn quoted(inner: &str, quote: char, escapes: usize) -> usize {
    for (at, _) in inner.match_indices(quote) {
        let before = inner[..at].trim_end_matches('\\').len();
        if at - before <= escapes {
            return before;
        }
    }
    inner.len()
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts: Vec<&str> = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .map(|part| part.trim_end_matches(|letter: char| letter.is_ascii_digit()))
        .filter(|part| !part.is_empty())
        .collect();
    let last = parts.len().saturating_sub(1);
    parts.iter().copied().enumerate().any(|(index, part)| {
        let one = part.strip_suffix('s').unwrap_or(part);
        let ends = |text: &str| ENDINGS.iter().any(|ending| text.ends_with(ending));
        ends(part)
            || ends(one)
            || WHOLE.contains(&part)
            || (index > 0 && index == last && (IN_COMPANY.contains(&part) || IN_COMPANY.contains(&one)))
    })
}

/// Tokens that nothing names.
fn without_tokens(line: &str) -> String {
    let is_token = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | '~' | '+' | '/' | '=')
    };
    let mut masked = String::with_capacity(line.len());
    let (mut before, mut rest) = ("", line);
    while !rest.is_empty() {
        let (gap, after) = rest.split_at(rest.find(is_token).unwrap_or(rest.len()));
        masked.push_str(gap);
        let end = after
            .find(|letter: char| !is_token(letter))
            .unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        let scheme = ["bearer", "basic"]
            .iter()
            .any(|scheme| before.eq_ignore_ascii_case(scheme));
        if (scheme && word.len() >= SHORTEST) || is_token_of_somebody(word) {
            masked.push_str(MASK);
        } else {
            masked.push_str(word);
        }
        (before, rest) = (word, after);
    }
    masked
}

fn is_token_of_somebody(word: &str) -> bool {
    let begins = |prefix: &&str| word.find(*prefix).is_some_and(|at| word.len() - at >= SHORTEST);
    let web_token = word
        .find("eyJ")
        .is_some_and(|at| word.len() - at >= 2 * SHORTEST && word[at..].matches('.').count() >= 2);
    web_token || PREFIXES.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_looks_like_a_secret_is_masked_and_what_it_is_for_stays() {
        for (text, masked) in [
            ("http://mara:pa55@proxy:3128/", "http://********@proxy:3128/"),
            (
                "via http://mara:pa/55@proxy, then",
                "via http://********@proxy, then",
            ),
            ("https://ghp-like@git.example/x", "https://********@git.example/x"),
            ("a?to=http://u:p@b", "a?to=http://********@b"),
            (
                "HTTP_PROXY=mara:pa=55@proxy:3128",
                "HTTP_PROXY=********@proxy:3128",
            ),
            ("DB_PASSWORD=hunter2 and on", "DB_PASSWORD=******** and on"),
            ("MYSQL_PASS: hunter2", "MYSQL_PASS: ********"),
            (
                "docker login --password hunter2 host",
                "docker login --password ******** host",
            ),
            (
                r#"{"identitytoken": "a\"b", "user": "mara"}"#,
                r#"{"identitytoken": "********", "user": "mara"}"#,
            ),
            (
                r#"msg="{\"auth\":\"bWFy\"}" n=1"#,
                r#"msg="{\"auth\":\"********\"}" n=1"#,
            ),
            ("Authorization: Basic bWFyYTpwYTU1", "Authorization: ********"),
            (
                "-H 'X-Registry-Auth: eyJ1c2VyIn0=' -v",
                "-H 'X-Registry-Auth: ********' -v",
            ),
            ("sent Bearer abcdefghijklmnop.q", "sent Bearer ********"),
            ("pulled by ghp_0123456789abcdefXYZ.", "pulled by ********"),
            ("SSH_KEY=abc", "SSH_KEY=********"),
            (r#""tokens": ["a", "b"]"#, r#""tokens": ********"#),
        ] {
            assert_eq!(mask(text), masked, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "level=info msg=\"API listen on /run/docker.sock\"",
            "docker-credential-secretservice: not found",
            "nginx:1.29@sha256:0123456789abcdef0123456789abcdef",
            "git@github.com:owner/repository.git",
            "PWD=/home/mara key=value author: mara",
            "https://registry.example:5000/v2/ answered 401",
            "token=null auth: false",
            "basic and bearer",
            "two\nlines\r\nstay\n",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn a_private_key_is_masked_from_its_first_line_to_its_last() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabcd\n-----END RSA PRIVATE KEY-----\n";
        let public = "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n";
        assert_eq!(
            mask(&format!("before\n{key}{public}after\n")),
            format!("before\n{MASK}\n{public}after\n")
        );
        let line = key.replace('\n', "\\n");
        assert_eq!(mask(&format!("a {line} b")), format!("a {MASK}\\n b"));
        let (_, cut) = key.split_once('\n').unwrap();
        let masked = mask(&format!("{cut}after\n"));
        assert!(!masked.contains("MIIE") && masked.contains("after"), "{masked}");
        let (unended, _) = key.split_once("-----END").unwrap();
        assert!(!mask(&format!("{unended}{public}")).contains("MIIE"));
    }

    #[test]
    fn values_are_masked_by_their_keys_however_deep() {
        let mut value = json!({
            "engine": {"registry-mirrors": ["https://u:p@mirror"], "log-opts": {"splunk-token": "x", "tokens": [1]}},
            "proxy.https": "http://u:p@h:1", "debug": true, "access-token": null, "mtu": 1500,
        });
        mask_json(&mut value);
        assert_eq!(
            value,
            json!({
                "engine": {
                    "registry-mirrors": ["https://********@mirror"],
                    "log-opts": {"splunk-token": MASK, "tokens": MASK},
                },
                "proxy.https": "http://********@h:1", "debug": true, "access-token": null, "mtu": 1500,
            })
        );
    }

    proptest! {
        #[test]
        fn no_password_of_an_address_comes_through(password in "Zq9[A-Za-z0-9!$%&*+/?#:@=,;._~-]{0,20}") {
            for text in [
                format!("GET http://mara:{password}@proxy:3128/x failed"),
                format!("proxy \"https://mara:{password}@proxy\"\n"),
            ] {
                let masked = mask(&text);
                prop_assert!(!masked.contains("Zq9"), "{} became {}", text, masked);
            }
        }

        #[test]
        fn no_value_of_a_secrets_name_comes_through(value in "Zq9[A-Za-z0-9!$%&*+/?#:@=,;._~-]{0,20}") {
            for text in [
                format!("API_TOKEN={value}"),
                format!("{{\"password\": \"{value}\"}}"),
                format!("Cookie: a=b; c={value}"),
            ] {
                let masked = mask(&text);
                prop_assert!(!masked.contains("Zq9"), "{} became {}", text, masked);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(
            text in any::<String>(),
            more in "[a-z:=@/\"'\\\\ \n-]{0,60}é?token[=: \"\\\\]{0,4}é?",
        ) {
            mask(&text);
            mask(&more);
            mask(&format!("{BEGIN}{text} PRIVATE KEY-----{more}"));
        }
    }
}
