//! What boots a machine: harness, end-to-end suites, driver-side virtio harness, fuzz targets, benches.

#[cfg(target_os = "linux")]
pub mod bench;
#[cfg(target_os = "linux")]
pub mod driver;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod fuzz;
#[cfg(target_os = "linux")]
pub mod harness;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod nested;
#[cfg(target_os = "linux")]
pub mod rings;
