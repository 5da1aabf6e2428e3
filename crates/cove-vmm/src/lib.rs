//! Cove's own monitor: boots a Linux kernel under KVM.
//!
//! ```text
//!   Vm::new           Vm::run
//!  ─────────▶ Ready ───────────▶ one thread a vCPU ──▶ PoweredOff | Reset
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
//! | [`vm`] | puts them together and owns them |
//!
//! There is no firmware, no PCI and no legacy timer. The machine is *hardware-reduced* in the sense of ACPI: its clock
//! is kvmclock, its timer the local APIC's. The crate is for Linux on x86-64 and is empty elsewhere.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod memory;
pub mod mmio;
pub mod ports;
pub mod vcpu;
pub mod vm;

pub use vm::{Config, End, Vm, VmError};
