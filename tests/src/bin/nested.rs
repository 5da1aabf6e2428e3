//! `nested run IMAGE SCRATCH`: what `tests/nested` has the outer guest run. It is also the machine process of the
//! machines that it starts.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    use cove_tests::nested;
    use std::process::ExitCode;

    // The first is the program's name.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", image, scratch] => match nested::run(image.as_ref(), scratch.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        ["machine-process", "--directory", directory] => cove_machine::process::run(directory.as_ref(), None),
        ["machine-process", "--directory", directory, "--part", part] => {
            cove_machine::process::run(directory.as_ref(), Some(part))
        }
        _ => {
            eprintln!("usage: nested run IMAGE SCRATCH");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("the monitor is for Linux on x86-64 only");
}
