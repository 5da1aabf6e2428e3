//! A program with nothing but the hidden subcommand, for tests of the machine process.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match arguments.as_slice() {
        [_, command, flag, directory] if command == "machine-process" && flag == "--directory" => {
            cove_machine::process::run(directory.as_ref(), None)
        }
        [_, command, flag, directory, further, part]
            if command == "machine-process" && flag == "--directory" && further == "--part" =>
        {
            cove_machine::process::run(directory.as_ref(), part.to_str())
        }
        _ => std::process::ExitCode::FAILURE,
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
