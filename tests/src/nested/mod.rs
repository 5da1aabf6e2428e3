//! What runs inside of the emulated machine whose kernel lends its KVM to the backend under test.
//!
//! ```text
//!  host ── QEMU, emulated, with SVM ──▶ outer guest: this program ── machine process: cove-vmm ──▶ Cove's own guest
//!    ▲                                      │  control and streams over vsock ───────────────────────┘
//!    └────────── a line for each test ──────┘
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`guest`] | a machine of the KVM backend, and the host's end of its agent |
//! | [`outer`] | the host's side: where a program gets a KVM, which benches use as well |
//! | [`trials`] | what is tried with it |

pub mod guest;
pub mod outer;
pub mod trials;

use std::path::Path;

use anyhow::{Context, Result};

/// Begins a line of the outer guest's console that is meant for the host.
pub const MARK: &str = "@nested ";

/// Where trials find the guest image, and where they may write.
pub struct Place<'a> {
    /// The image.
    pub image: &'a Path,
    /// Keeps what one trial leaves for the next, in memory.
    pub scratch: &'a Path,
}

/// The trial that fills a disk, which it can do in the outer machine alone.
pub const FULL_DISK: &str = "a_full_disk_holds_the_guest_until_there_is_space_and_nothing_is_lost";

/// Names of all trials, in the order in which they run.
pub const TRIALS: [&str; 8] = [
    "the_probe_takes_this_kvm_and_says_why",
    "containers_run_and_survive_a_pause_and_a_folder_is_shared",
    "a_container_reaches_this_computer_through_the_network_device",
    FULL_DISK,
    "a_guest_restarts_in_place_and_a_kill_is_a_power_cut",
    "data_outlives_the_machine_and_a_power_off_ends_it_in_order",
    "two_vcpus_share_disk_and_clocks_and_are_paused_together",
    "a_kernel_that_panics_is_reported_with_its_words",
];

/// Runs the trials, and says of each how it went.
pub fn run(image: &Path, scratch: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let place = Place { image, scratch };
    for name in TRIALS {
        let outcome = runtime.block_on(async {
            match name {
                "the_probe_takes_this_kvm_and_says_why" => trials::probe(),
                "containers_run_and_survive_a_pause_and_a_folder_is_shared" => {
                    trials::containers(&place).await
                }
                "a_container_reaches_this_computer_through_the_network_device" => {
                    trials::network(&place).await
                }
                FULL_DISK => trials::full_disk(&place).await,
                "a_guest_restarts_in_place_and_a_kill_is_a_power_cut" => trials::restart(&place).await,
                "data_outlives_the_machine_and_a_power_off_ends_it_in_order" => {
                    trials::power_off(&place).await
                }
                "two_vcpus_share_disk_and_clocks_and_are_paused_together" => {
                    trials::several_vcpus(&place).await
                }
                _ => trials::panic(&place).await,
            }
        });
        match outcome {
            Ok(()) => println!("{MARK}ok {name}"),
            Err(error) => {
                println!("{MARK}failed {name}: {}", one_line(&error));
                // Whatever it left behind is not the next one's fault.
                if let Err(error) = runtime.block_on(guest::end_left_over(&place)) {
                    println!("a machine is left over: {}", one_line(&error));
                }
            }
        }
    }
    Ok(())
}

/// An error on one line, as the host reads lines.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace(['\n', '\r'], " | ")
}
