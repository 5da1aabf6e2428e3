//! The backend for KVM under a real KVM: this computer's, or, where there is none, that of an emulated machine with
//! SVM.
//!
//! One process or one outer machine runs all trials; this program reports each as a test of its own. Skipped, with the
//! reason shown, only where there is no KVM and QEMU is missing or older than 10, whose timers get lost when machines
//! are nested. Under this computer's KVM the trial that fills a disk is skipped, since it would fill this computer's.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod outcomes;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    use cove_tests::nested::{FULL_DISK, TRIALS, outer};
    use libtest_mimic::{Arguments, Trial};
    use outcomes::Outcomes;
    use std::{path::Path, sync::OnceLock};

    /// What became of the outer machine, which runs when the first test is asked for.
    static OUTCOME: OnceLock<Result<Outcomes, String>> = OnceLock::new();

    let arguments = Arguments::from_args();
    let unfit = outer::unfit();
    if let Some(why) = &unfit {
        eprintln!("skipped: {why}");
    }
    let has_kvm = outer::has_kvm();
    if has_kvm {
        eprintln!("skipped: {FULL_DISK}: only the outer machine has a disk that may be filled");
    }
    let trials = TRIALS
        .into_iter()
        .map(|name| {
            let test = move || {
                let program = Path::new(env!("CARGO_BIN_EXE_nested"));
                let run = || outcomes::run(program).map_err(|error| format!("{error:#}"));
                match OUTCOME.get_or_init(run) {
                    Ok(outcomes) => Ok(outcomes.of(name)?),
                    Err(why) => Err(why.into()),
                }
            };
            let is_unfit = unfit.is_some() || (has_kvm && name == FULL_DISK);
            Trial::test(name, test).with_ignored_flag(is_unfit)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}
