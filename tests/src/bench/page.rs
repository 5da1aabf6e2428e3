//! `docs/measurements.md`: what every bench found when it last ran, which of its goals were missed, and why.

use super::{BENCHES, Bench, record::Results, table::Line};
use anyhow::{Context as _, Result, bail};
use std::{fmt::Write as _, fs, io::ErrorKind, path::Path};

/// From so many per cent of the processors on, other programs may have changed the figures.
const BUSY: f64 = 5.0;

/// Writes the page to `out`, from what benches saved below `figures`. Fails, and writes nothing, where none did, and
/// where a file holds something else.
pub fn write(figures: &Path, out: &Path) -> Result<()> {
    let mut parts = Vec::new();
    let mut missing = Vec::new();
    for bench in BENCHES {
        let file = figures.join(format!("{}.json", bench.name));
        match read(&file).with_context(|| format!("measure it anew: cargo xtask bench {}", bench.name))? {
            Some(results) => parts.push((bench, results)),
            None => missing.push(bench.name),
        }
    }
    if parts.is_empty() {
        bail!(
            "nothing below {} was measured; run: cargo xtask bench all",
            figures.display()
        );
    }
    for (bench, results) in &parts {
        for name in unmatched(bench, results) {
            println!(
                "bench {} explains `{name}`, which is no row of its figures",
                bench.name
            );
        }
    }
    fs::write(out, page(&parts, &missing)).with_context(|| format!("cannot write {}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// What a bench saved in `file`; nothing where there is none.
fn read(file: &Path) -> Result<Option<Results>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{} holds no figures of a bench as it is now", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Reasons that a bench has for a row which its figures do not have.
fn unmatched(bench: &Bench, results: &Results) -> Vec<&'static str> {
    let names = bench.why.iter().map(|(name, _)| *name);
    names
        .filter(|name| !results.rows.iter().any(|line| line.name == *name))
        .collect()
}

fn page(parts: &[(&Bench, Results)], missing: &[&str]) -> String {
    let mut page = String::from(
        "# Measurements\n\n\
         <!-- Made by `cargo xtask bench page` from what the benches saved. -->\n\n\
         Each part is one run of one bench, by `cargo xtask bench NAME`, with what it ran on; `cargo xtask bench all`\n\
         runs them all. *Ours* is Cove, *peer* is what it was measured beside in the same run, and the ratio is ours\n\
         to the peer's. A goal such as ≥ 1.5× is for the ratio, one such as ours ≤ 20 for our own figure.\n\n\
         Times and rates are those of one computer, and tell nothing of another; where other programs ran meanwhile,\n\
         they tell little. The load average is of the minute before, in which the run may have built what it\n\
         measures, or another bench may have ended.\n",
    );
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|name| format!("`bench {name}`")).collect();
        // Writing to a string does not fail.
        let _ = write!(page, "\nNot measured: {}.\n", names.join(", "));
    }
    for (bench, results) in parts {
        add(&mut page, bench, results);
    }
    page
}

/// Adds a bench's part. Writing to a string does not fail.
fn add(page: &mut String, bench: &Bench, results: &Results) {
    let (run, about) = (&results.circumstances, &results.about);
    let _ = write!(page, "\n## {}\n\n| | |\n| --- | --- |\n", bench.title);
    let others = if run.busy < BUSY { "few" } else { "**running**" };
    for (what, value) in [
        (
            "measured",
            format!("{} by `cargo xtask bench {}`", cell(&run.date), bench.name),
        ),
        ("built from", format!("`{}`", cell(&run.commit))),
        (
            "processor",
            format!("{}, logical processors: {}", cell(&run.processor), run.processors),
        ),
        ("kernel", cell(&run.kernel)),
        ("backend", cell(&about.backend)),
        (
            "peer",
            if about.peers.is_empty() {
                "none".to_owned()
            } else {
                cell(&about.peers.join("; "))
            },
        ),
        (
            "other programs",
            format!(
                "{others}: {:.1} % of the processors just before; load average {:.2}",
                run.busy, run.load
            ),
        ),
    ] {
        let _ = writeln!(page, "| {what} | {value} |");
    }
    page.push_str(
        "\n| what | unit | ours | peer | ratio | goal | |\n| --- | --- | ---: | ---: | ---: | --- | --- |\n",
    );
    for line in &results.rows {
        page.push_str(&row(line));
    }
    let missed: Vec<&Line> = results
        .rows
        .iter()
        .filter(|line| line.met == Some(false))
        .collect();
    if !missed.is_empty() {
        page.push_str("\nMissed:\n\n");
    }
    for line in missed {
        let why = bench.why.iter().find(|(name, _)| line.name == *name);
        let why = why.map_or("not yet explained", |(_, why)| *why);
        let _ = writeln!(page, "- {}: {why}", cell(&line.name));
    }
    for note in &about.notes {
        let _ = write!(page, "\nNote: {}.\n", cell(note));
    }
}

fn row(line: &Line) -> String {
    let shown = |figure: Option<f64>, unit: &str| {
        figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.2}{unit}"))
    };
    let verdict = match (&line.goal, line.met) {
        (None, _) => "",
        (Some(_), Some(true)) => "met",
        (Some(_), Some(false)) => "**missed**",
        (Some(_), None) => "not measured",
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {verdict} |\n",
        cell(&line.name),
        cell(&line.unit),
        shown(Some(line.ours), ""),
        shown(line.peer, ""),
        shown(line.ratio, "×"),
        cell(line.goal.as_deref().unwrap_or_default()),
    )
}

/// Text that stays within its cell of a table, and is no markup.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' => cell.push_str("\\|"),
            '<' => cell.push_str("&lt;"),
            letter if letter.is_control() => cell.push(' '),
            letter => cell.push(letter),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"{
        "circumstances": {
            "date": "2026-03-01", "commit": "0123456789ab", "processor": "Example|9000", "processors": 4,
            "kernel": "Linux 6.12.0", "load": 0.25, "busy": 1.5
        },
        "about": {
            "backend": "emulated", "peers": ["other 1.2"], "notes": ["one guest"], "details": { "rounds": 3 }
        },
        "rows": [
            { "name": "quick", "unit": "s", "ours": 1.0, "peer": 4.0, "ratio": 0.25, "goal": "≤ 0.5×", "met": true },
            { "name": "slow", "unit": "s", "ours": 3.0, "peer": 4.0, "ratio": 0.75, "goal": "≤ 0.5×", "met": false },
            { "name": "odd", "unit": "s", "ours": 9, "peer": null, "ratio": null, "goal": "ours ≤ 5", "met": false },
            { "name": "alone", "unit": "s", "ours": 2.0, "peer": null, "ratio": null, "goal": "≤ 1×", "met": null },
            { "name": "told", "unit": "", "ours": 2.0, "peer": null, "ratio": null, "goal": null, "met": null }
        ],
        "missed": ["slow", "odd"], "unmeasured": ["alone"], "met": false
    }"#;

    const BENCH: Bench = Bench {
        name: "some",
        title: "Something",
        run: |_| Ok(()),
        why: &[
            ("slow", "it asks twice"),
            ("quick", "never shown"),
            ("gone", "for nothing"),
        ],
    };

    fn sample(text: &str) -> Results {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_part_says_what_it_ran_on_and_every_figure_with_its_goal() {
        let page = page(&[(&BENCH, sample(SAVED))], &[]);
        for line in [
            "## Something",
            "| measured | 2026-03-01 by `cargo xtask bench some` |",
            "| built from | `0123456789ab` |",
            "| processor | Example\\|9000, logical processors: 4 |",
            "| kernel | Linux 6.12.0 |",
            "| backend | emulated |",
            "| peer | other 1.2 |",
            "| other programs | few: 1.5 % of the processors just before; load average 0.25 |",
            "| quick | s | 1.00 | 4.00 | 0.25× | ≤ 0.5× | met |",
            "| slow | s | 3.00 | 4.00 | 0.75× | ≤ 0.5× | **missed** |",
            "| odd | s | 9.00 | – | – | ours ≤ 5 | **missed** |",
            "| alone | s | 2.00 | – | – | ≤ 1× | not measured |",
            "| told |  | 2.00 | – | – |  |  |",
            "Note: one guest.",
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
        assert!(!page.contains("Not measured:"), "{page}");
    }

    #[test]
    fn missed_goals_have_their_reason_and_no_others_do() {
        let page = page(&[(&BENCH, sample(SAVED))], &[]);
        let missed: Vec<&str> = page.lines().filter(|line| line.starts_with("- ")).collect();
        assert_eq!(missed, ["- slow: it asks twice", "- odd: not yet explained"]);
        let met = SAVED.replace("\"met\": false", "\"met\": true");
        assert!(!super::page(&[(&BENCH, sample(&met))], &[]).contains("Missed:"));
    }

    #[test]
    fn a_reason_for_a_row_that_is_not_there_is_found() {
        let results = sample(SAVED);
        assert_eq!(unmatched(&BENCH, &results), ["gone"]);
    }

    #[test]
    fn other_programs_that_ran_are_pointed_out() {
        let busy = SAVED.replace("\"busy\": 1.5", "\"busy\": 48.0");
        let page = page(&[(&BENCH, sample(&busy))], &[]);
        assert!(page.contains("| other programs | **running**: 48.0 %"), "{page}");
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("page.md");
        fs::write(place.path().join("boot.json"), SAVED).unwrap();
        write(place.path(), &out).unwrap();
        let page = fs::read_to_string(&out).unwrap();
        assert!(
            page.contains("\nNot measured: `bench events`, `bench fs`"),
            "{page}"
        );
        assert!(
            page.contains("\n## Boot\n") && !page.contains("\n## Folders\n"),
            "{page}"
        );
    }

    #[test]
    fn without_figures_and_with_bad_ones_there_is_no_page_but_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("page.md");
        let error = write(place.path(), &out).unwrap_err().to_string();
        assert!(error.contains("cargo xtask bench all"), "{error}");
        let old = r#"{ "backend": { "kind": "emulated" }, "rows": [], "missed": [], "met": true }"#;
        for bad in ["", "{", old] {
            fs::write(place.path().join("fs.json"), bad).unwrap();
            let error = format!("{:#}", write(place.path(), &out).unwrap_err());
            assert!(
                error.contains("cargo xtask bench fs") && error.contains("fs.json"),
                "{error}"
            );
        }
        assert!(!out.exists());
    }
}
