//! Path patterns of the recipe: `*` stands for any characters within one path component, `**` for any number
//! of whole components. Everything else stands for itself.

use serde::Deserialize;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Pattern {
    text: String,
    components: Vec<String>,
}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        let components = text.split('/').map(str::to_owned).collect();
        Self { text, components }
    }
}

impl Pattern {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `path`, relative and with `/` between components, matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        match_components(&self.components, &path)
    }
}

/// Dynamic programming over one row, so that a pattern of many `**` costs pattern × path and no more.
fn match_components(pattern: &[String], path: &[&str]) -> bool {
    // reached[i]: the pattern so far matches the first i components.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if part == "**" {
            let mut open = false;
            for (slot, was) in next.iter_mut().zip(&reached) {
                open |= was;
                *slot = open;
            }
        } else {
            for (i, component) in path.iter().enumerate() {
                next[i + 1] = reached[i] && match_component(part.as_bytes(), component.as_bytes());
            }
        }
        reached = next;
    }
    reached[path.len()]
}

/// `*` within a component: greedy with one point to go back to, which is all that `*` needs.
fn match_component(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after_star, start)) = back {
            back = Some((after_star, start + 1));
            (p, t) = (after_star, start + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::from(pattern.to_owned()).matches(path)
    }

    #[test]
    fn a_star_stays_within_its_component() {
        assert!(matches("usr/lib/*.so*", "usr/lib/libz.so.1"));
        assert!(!matches("usr/lib/*.so*", "usr/lib/sub/libz.so.1"));
        assert!(matches("a*b*c", "aXbYbZc"));
        assert!(!matches("a*b", "ab/"));
    }

    #[test]
    fn a_double_star_spans_components_and_none() {
        assert!(matches("kernel/**/x.ko", "kernel/x.ko"));
        assert!(matches("kernel/**/x.ko", "kernel/net/ipv4/x.ko"));
        assert!(matches("kernel/net/**", "kernel/net/ipv4/netfilter/y.ko"));
        assert!(!matches("kernel/net/**", "kernel/fs/z.ko"));
    }

    proptest! {
        #[test]
        fn text_without_stars_matches_only_itself(a in "[a-c/]{0,12}", b in "[a-c/]{0,12}") {
            prop_assert_eq!(matches(&a, &b), a == b);
        }

        #[test]
        fn a_lone_double_star_matches_everything(path in "[a-c/]{0,20}") {
            prop_assert!(matches("**", &path));
        }

        #[test]
        fn hostile_patterns_end(pattern in "[*/a]{0,60}", path in "[a/]{0,200}") {
            matches(&pattern, &path);
        }
    }
}
