//! The settings as a form, and what a change comes to.

use crate::Failure;
use cove_api::{Setting, Settings, SettingsOutcome, Share, Trusted};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// Lines of a settings file that are compared at most; longer ones are shown as all removed and all added.
const MAX_LINES: usize = 2000;
/// Lines that are shown around a change.
const AROUND: usize = 1;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SettingsView {
    /// The file that they stand in.
    pub file: String,
    /// Each of them.
    pub rows: Vec<SettingRow>,
    /// What is wrong with the file, whose last good values these are.
    pub problem: Option<Failure>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SettingRow {
    /// Its key, such as `machine.cpus`.
    pub key: String,
    /// The value in force, as text; JSON where it is neither text, number nor switch.
    pub value: String,
    /// The value where nothing is set.
    pub default: String,
    /// Whether the file sets it.
    pub set: bool,
    /// What it is for.
    pub description: String,
    /// What it takes, in words.
    pub accepts: String,
    /// How it is typed.
    pub field: SettingField,
    /// What can be chosen where it is a choice, and else nothing.
    pub choices: Vec<String>,
}

/// How a setting is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum SettingField {
    /// A line.
    Line,
    /// On or off.
    Switch,
    /// One of a few.
    Choice,
    /// JSON of several lines.
    Json,
}

/// What a change of settings comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct SettingsDiff {
    /// Lines of the file that change, with those around them; none if nothing does.
    pub lines: Vec<DiffLine>,
    /// Running machines that only heed it after a restart.
    pub restart_needed: Vec<String>,
    /// The file that this is a change of: it is only applied to that.
    pub mark: String,
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DiffLine {
    /// Whether it goes, comes or stays.
    pub sign: DiffSign,
    /// The line.
    pub text: String,
}

/// What happens to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum DiffSign {
    /// It stays.
    Same,
    /// It goes.
    Removed,
    /// It comes.
    Added,
}

/// A folder that containers may mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct ShareRow {
    /// The folder.
    pub path: String,
    /// Whether containers may only read.
    pub read_only: bool,
    /// Why the machine does not have it although it runs.
    pub missing: Option<String>,
}

/// A certificate that is trusted besides those of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TrustRow {
    /// By which it is told from others.
    pub fingerprint: String,
    /// Whom it names.
    pub subject: String,
    /// Its last moment.
    pub expires: String,
}

impl From<Settings> for SettingsView {
    fn from(settings: Settings) -> Self {
        Self {
            file: settings.file.display().to_string(),
            rows: settings.values.into_iter().map(SettingRow::from).collect(),
            problem: settings.problem.map(Failure::from),
        }
    }
}

impl From<Setting> for SettingRow {
    fn from(setting: Setting) -> Self {
        let field = match &setting.default {
            _ if !setting.choices.is_empty() => SettingField::Choice,
            Value::Bool(_) => SettingField::Switch,
            Value::Array(_) | Value::Object(_) => SettingField::Json,
            Value::Null | Value::Number(_) | Value::String(_) => SettingField::Line,
        };
        Self {
            value: text(&setting.value),
            default: text(&setting.default),
            set: setting.set,
            key: setting.key,
            description: setting.description,
            accepts: setting.accepts,
            field,
            choices: setting.choices,
        }
    }
}

impl From<SettingsOutcome> for SettingsDiff {
    fn from(outcome: SettingsOutcome) -> Self {
        Self {
            lines: shortened(&difference(&outcome.before, &outcome.after)),
            restart_needed: outcome.restart_needed,
            mark: outcome.mark,
        }
    }
}

impl ShareRow {
    /// A share as a machine sees it.
    pub fn read(share: Share, machine: &str) -> Self {
        let missing = share
            .missing
            .into_iter()
            .find(|missing| missing.machine == machine);
        Self {
            path: share.path.display().to_string(),
            read_only: share.read_only,
            missing: missing.map(|missing| missing.why),
        }
    }
}

impl TrustRow {
    /// All that are trusted.
    pub fn read_all(trusted: Trusted) -> Vec<Self> {
        let row = |certificate: cove_api::Certificate| Self {
            fingerprint: certificate.fingerprint,
            subject: certificate.subject,
            expires: certificate.expires,
        };
        trusted.certificates.into_iter().map(row).collect()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => format!("{value:#}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The lines of both texts, by their longest common subsequence.
fn difference(before: &str, after: &str) -> Vec<DiffLine> {
    let line = |sign, text: &str| DiffLine {
        sign,
        text: text.to_owned(),
    };
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if old.len() > MAX_LINES || new.len() > MAX_LINES {
        let removed = old.iter().map(|text| line(DiffSign::Removed, text));
        return removed
            .chain(new.iter().map(|text| line(DiffSign::Added, text)))
            .collect();
    }
    // longest[i][j]: of what follows line i of the old and line j of the new.
    let mut longest = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for (i, one) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            longest[i][j] = if one == other {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::with_capacity(old.len() + 8);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(line(DiffSign::Same, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            lines.push(line(DiffSign::Removed, old[i]));
            i += 1;
        } else {
            lines.push(line(DiffSign::Added, new[j]));
            j += 1;
        }
    }
    lines
}

/// What changes, and what is around it.
fn shortened(lines: &[DiffLine]) -> Vec<DiffLine> {
    let changes = |at: usize| {
        let from = at.saturating_sub(AROUND);
        let around = &lines[from..lines.len().min(at + AROUND + 1)];
        around.iter().any(|line| line.sign != DiffSign::Same)
    };
    let kept = lines.iter().enumerate().filter(|(at, _)| changes(*at));
    kept.map(|(_, line)| line.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn signs(lines: &[DiffLine]) -> String {
        let sign = |line: &DiffLine| match line.sign {
            DiffSign::Same => ' ',
            DiffSign::Removed => '-',
            DiffSign::Added => '+',
        };
        lines.iter().map(sign).collect()
    }

    #[test]
    fn changes_that_are_apart_are_shown_apart_with_what_is_around_them() {
        let before = "a\nb\nc\nd\ne\nf\ng\n";
        let diff = SettingsDiff::from(SettingsOutcome {
            before: before.into(),
            after: before.replace("b\n", "B\n").replace("f\n", ""),
            mark: String::new(),
            restart_needed: Vec::new(),
        });
        assert_eq!(signs(&diff.lines), " -+  - ");
        let texts: Vec<&str> = diff.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "B", "c", "e", "f", "g"]);
    }

    #[test]
    fn a_setting_is_typed_as_what_it_is() {
        let row = |value: Value| {
            SettingRow::from(Setting {
                key: "k".into(),
                value: value.clone(),
                default: value,
                set: false,
                description: String::new(),
                accepts: String::new(),
                choices: Vec::new(),
            })
        };
        assert_eq!(
            (row(json!(2)).value, row(json!(2)).field),
            ("2".into(), SettingField::Line)
        );
        assert_eq!(
            (
                row(json!("4 GiB")).value.as_str(),
                row(json!(null)).value.as_str()
            ),
            ("4 GiB", "")
        );
        assert_eq!(row(json!(true)).field, SettingField::Switch);
        assert_eq!(row(json!({"debug": true})).field, SettingField::Json);
    }

    #[test]
    fn a_setting_of_a_few_named_values_is_chosen() {
        let choices = vec!["auto".to_owned(), "kvm".to_owned()];
        let row = SettingRow::from(Setting {
            key: "k".into(),
            value: json!("auto"),
            default: json!("auto"),
            set: false,
            description: String::new(),
            accepts: String::new(),
            choices: choices.clone(),
        });
        assert_eq!((row.field, row.choices), (SettingField::Choice, choices));
    }

    proptest! {
        #[test]
        fn a_difference_holds_both_texts(before in "([ab]\n){0,12}", after in "([ab]\n){0,12}") {
            let lines = difference(&before, &after);
            let side = |gone: DiffSign| -> String {
                let kept = lines.iter().filter(|line| line.sign != gone);
                kept.flat_map(|line| [line.text.as_str(), "\n"]).collect()
            };
            prop_assert_eq!(side(DiffSign::Added), before);
            prop_assert_eq!(side(DiffSign::Removed), after);
        }
    }
}
