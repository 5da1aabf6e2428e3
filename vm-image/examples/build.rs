//! Builds an image from a shell: `cargo run -p cove-image --example build -- --agent PATH --output DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

use cove_image::{BuildOptions, Outcome, Progress, build};

fn main() -> ExitCode {
    let mut options = BuildOptions::new("", "", std::env::temp_dir().join("cove-image-cache"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || PathBuf::from(arguments.next().unwrap_or_default());
        match argument.as_str() {
            "--agent" => options.agent = value(),
            "--output" => options.output = value(),
            "--cache" => options.cache = value(),
            "--recipe" => options.recipe = Some(value()),
            "--sources" => options.sources = Some(value()),
            "--offline" => options.offline = true,
            "--refresh" => options.refresh = true,
            other => {
                eprintln!("unknown argument {other}");
                return ExitCode::from(2);
            }
        }
    }
    let start = std::time::Instant::now();
    let mut report = |progress: Progress| {
        if let Progress::Started(stage) = progress {
            eprintln!("{:6.1} s  {stage}", start.elapsed().as_secs_f32());
        }
    };
    match build(&options, &mut report) {
        Ok(outcome) => {
            let seconds = start.elapsed().as_secs_f32();
            let word = if matches!(outcome, Outcome::Built(_)) {
                "built"
            } else {
                "unchanged"
            };
            eprintln!("{seconds:6.1} s  {word}: {}", outcome.manifest().fingerprint);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  cause: {cause}");
                source = cause.source();
            }
            if let Some(hint) = error.hint() {
                eprintln!("  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
