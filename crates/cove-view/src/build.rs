//! A build of an image: what a person asks for, and what is kept of one that has ended.

use crate::Variable;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Longest field of the form, in bytes.
const LONGEST: usize = 4096;
/// Most build arguments and platforms.
const MAX_ITEMS: usize = 256;

/// What to build an image from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct BuildSpec {
    /// The folder that the build may read, an absolute path.
    pub folder: String,
    /// The Dockerfile, relative to the folder; empty: `Dockerfile`.
    pub dockerfile: String,
    /// The image's name; empty: none.
    pub tag: String,
    /// The stage to build; empty: the last one.
    pub target: String,
    /// Platforms such as `linux/arm64`; none: the machine's own.
    pub platforms: Vec<String>,
    /// Build arguments.
    pub args: Vec<Variable>,
}

/// A build in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct BuildRow {
    /// Names it among all builds.
    pub id: String,
    /// What was asked for.
    pub spec: BuildSpec,
    /// When it began.
    #[ts(type = "number")]
    pub started_ms: i64,
    /// How long it took, in milliseconds.
    #[ts(type = "number")]
    pub took_ms: u64,
    /// How it ended.
    pub outcome: BuildOutcome,
    /// Why it failed; empty where it did not.
    pub failure: String,
    /// Steps that `BuildKit` took or found done.
    pub steps: u32,
    /// Those of them that it found done.
    pub cached: u32,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum BuildOutcome {
    /// It has not.
    Running,
    /// There is an image.
    Done,
    /// There is none.
    Failed,
    /// A person ended it.
    Cancelled,
}

/// All that is known of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct BuildDetails {
    /// Its steps, in the order in which `BuildKit` named them.
    pub steps: Vec<BuildStep>,
    /// What it wrote, one line each, with the escape sequences that these came with.
    pub log: Vec<String>,
}

/// The builds that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
pub struct BuildHistory {
    /// The newest first.
    pub builds: Vec<BuildRow>,
    /// Where a file was put that could not be read.
    pub damaged: Option<String>,
}

/// One step of a build: an instruction of the Dockerfile, or what `BuildKit` does before and after them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct BuildStep {
    /// Its number, from 1 on, as the log has it.
    pub number: u32,
    /// The stage that it belongs to, with the platform where there are several; absent for what belongs to none.
    pub stage: Option<String>,
    /// Its place in the stage, such as `2/4`; empty where it has none.
    pub place: String,
    /// What it does, such as `RUN npm ci`.
    pub name: String,
    /// How far it is.
    pub state: BuildStepState,
    /// How long it took, in milliseconds; absent until it has ended.
    #[ts(type = "number | null")]
    pub took_ms: Option<u64>,
    /// What of it is under way, such as a layer that is extracted; empty where nothing is.
    pub note: String,
    /// How much of that has been done, from 0 to 1; absent where nobody knows.
    pub fraction: Option<f32>,
    /// Why it failed; empty where it did not.
    pub error: String,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum BuildStepState {
    /// It is under way.
    Running,
    /// It was done.
    Done,
    /// An earlier build had done it.
    Cached,
    /// It could not be done.
    Failed,
    /// It was ended, by a person or since another failed.
    Cancelled,
}

impl BuildSpec {
    /// The words of the command that builds it in its folder, without `docker`. Each value shares a word with its
    /// option, so that none is taken for another option.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = ["buildx", "build", "--progress=plain"]
            .map(str::to_owned)
            .to_vec();
        let mut say = |option: &str, value: &str| {
            if !value.is_empty() {
                words.push(format!("--{option}={value}"));
            }
        };
        say("tag", &self.tag);
        say("file", &self.dockerfile);
        say("target", &self.target);
        say("platform", &self.platforms.join(","));
        for Variable { name, value } in &self.args {
            say("build-arg", &format!("{name}={value}"));
        }
        words.push(".".to_owned());
        words
    }

    /// What is wrong with it; nothing if it can be tried.
    pub fn fault(&self) -> Option<&'static str> {
        let Self {
            folder,
            dockerfile,
            tag,
            target,
            platforms,
            args,
        } = self;
        let names = args.iter().flat_map(|arg| [&arg.name, &arg.value]);
        let mut fields = [folder, dockerfile, tag, target]
            .into_iter()
            .chain(platforms)
            .chain(names);
        if !folder.starts_with('/') {
            Some("the folder is no absolute path")
        } else if platforms.len() > MAX_ITEMS || args.len() > MAX_ITEMS {
            Some("there are too many platforms or arguments")
        } else if fields.any(|field| field.len() > LONGEST || field.contains('\0')) {
            Some("one of the fields is too long, or holds a zero byte")
        } else if args
            .iter()
            .any(|arg| arg.name.is_empty() || arg.name.contains('='))
        {
            Some("an argument has no name")
        } else if platforms.iter().any(|platform| platform.contains(',')) {
            Some("a platform holds a comma")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BuildSpec {
        BuildSpec {
            folder: "/home/u/shop".into(),
            dockerfile: String::new(),
            tag: String::new(),
            target: String::new(),
            platforms: Vec::new(),
            args: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_said_and_no_value_becomes_an_option() {
        assert_eq!(spec().words(), ["buildx", "build", "--progress=plain", "."]);
        let full = BuildSpec {
            dockerfile: "-api.Dockerfile".into(),
            tag: "shop/api:dev".into(),
            target: "--output=/etc".into(),
            platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
            args: vec![Variable {
                name: "A".into(),
                value: "b c".into(),
            }],
            ..spec()
        };
        assert_eq!(
            full.words()[3..],
            [
                "--tag=shop/api:dev",
                "--file=-api.Dockerfile",
                "--target=--output=/etc",
                "--platform=linux/amd64,linux/arm64",
                "--build-arg=A=b c",
                "."
            ]
        );
        assert_eq!(full.fault(), None);
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        let arg = |name: &str, value: String| {
            vec![Variable {
                name: name.into(),
                value,
            }]
        };
        for wrong in [
            BuildSpec {
                folder: "shop".into(),
                ..spec()
            },
            BuildSpec {
                tag: "x".repeat(LONGEST + 1),
                ..spec()
            },
            BuildSpec {
                target: "a\0b".into(),
                ..spec()
            },
            BuildSpec {
                args: arg("", "x".into()),
                ..spec()
            },
            BuildSpec {
                args: arg("A", "x".repeat(LONGEST + 1)),
                ..spec()
            },
            BuildSpec {
                platforms: vec!["a,b".into()],
                ..spec()
            },
            BuildSpec {
                platforms: vec!["a".into(); MAX_ITEMS + 1],
                ..spec()
            },
        ] {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
    }
}
