//! Cove's own monitor: boots a Linux kernel under KVM.
//!
//! ```text
//!   Vm::new           Vm::start
//!  ─────────▶ Ready ───────────▶ Running ⇄ Paused ──▶ PoweredOff | Reset
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`layout`] | where everything lies in the guest's physical address space |
//! | [`memory`] | the guest's memory, around the 32-bit hole |
//! | [`boot`] | kernel, initramfs and start info, by the PVH protocol |
//! | [`acpi`] | the few tables that the kernel needs: processors, serial port, how to power off |
//! | [`cpuid`], [`vcpu`] | what the guest sees of the processor, and the thread that runs one |
//! | [`ports`] | the I/O ports: console, power, reset |
//! | [`mmio`] | the bus and the virtio-mmio transport for the devices of `cove-virtio` |
//! | `fitter` | the thread that sets devices up, which a vCPU may not |
//! | [`vm`] | puts them together and owns them |
//! | [`running`], `gate` | what can be done to a machine that runs, and how its vCPUs are stopped for it |
//! | [`host`] | whether this computer's KVM can do what a machine needs |
//!
//! There is no firmware, no PCI and no legacy timer. The machine is *hardware-reduced* in the sense of ACPI: its clock
//! is kvmclock, its timer the local APIC's. The crate is for Linux on x86-64 and is empty elsewhere.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod acpi;
pub mod boot;
pub mod cpuid;
mod fitter;
mod gate;
pub mod host;
pub mod layout;
pub mod memory;
pub mod mmio;
pub mod ports;
pub mod running;
pub mod vcpu;
pub mod vm;

pub use running::{ControlError, Report, Running};
pub use vm::{Config, End, Vm, VmError};
