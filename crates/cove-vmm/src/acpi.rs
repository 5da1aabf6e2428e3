//! The ACPI tables (ACPI 6.5): which processors there are, where the serial port is, how to power off and to reset.
//!
//! `RSDP → XSDT → FADT → DSDT`, and the MADT. The platform is hardware-reduced (`HW_REDUCED_ACPI`), so that there is no
//! legacy interrupt controller or timer for the kernel to look for.

use crate::layout::{
    ACPI, DEVICE_IRQ, DEVICES, HIGH_MEMORY, IO_APIC, LOCAL_APIC, RESET_PORT, RESET_VALUE, SERIAL_IRQ,
    SERIAL_PORT, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF,
};
use crate::mmio;

/// `WBINVD`, `PWR_BUTTON` and `SLP_BUTTON` (no fixed buttons), `RESET_REG_SUP`, `HW_REDUCED_ACPI`.
const FADT_FLAGS: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20;
/// No VGA, no CMOS clock; the bit for an 8042 keyboard controller stays clear.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 5;
const HEADER: usize = 36;
const FADT_SIZE: usize = 276;

/// The tables as they lie at [`ACPI`], the RSDP first. `vcpus` is at most 254,
/// `devices` at most [`crate::layout::MAX_DEVICES`].
pub fn tables(vcpus: u8, devices: u8) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let mut put = |table: Vec<u8>| {
        let address = ACPI + bytes.len() as u64;
        bytes.extend_from_slice(&table);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = put(table(*b"DSDT", 2, &dsdt(devices)));
    let fadt = put(fadt(dsdt));
    let madt = put(table(*b"APIC", 5, &madt(vcpus)));
    let entries = [fadt.to_le_bytes(), madt.to_le_bytes()].concat();
    let xsdt = put(table(*b"XSDT", 1, &entries));
    bytes[..36].copy_from_slice(&rsdp(xsdt));
    debug_assert!(ACPI + bytes.len() as u64 <= HIGH_MEMORY, "254 processors fit");
    bytes
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

fn rsdp(xsdt: u64) -> [u8; 36] {
    let mut rsdp = [0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(b"COVE  ");
    rsdp[15] = 2;
    rsdp[20..24].copy_from_slice(&36u32.to_le_bytes());
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// A table: its header with the checksum over all of it, and `body`.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = signature.to_vec();
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[revision, 0]);
    bytes.extend_from_slice(b"COVE  MICROVM ");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(b"COVE");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes[9] = checksum(&bytes);
    bytes
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut body = [0; FADT_SIZE - HEADER];
    // Offsets as the specification counts them, from the header's start.
    let mut put = |offset: usize, bytes: &[u8]| {
        body[offset - HEADER..offset - HEADER + bytes.len()].copy_from_slice(bytes);
    };
    put(109, &BOOT_ARCHITECTURE.to_le_bytes());
    put(112, &FADT_FLAGS.to_le_bytes());
    put(116, &port(RESET_PORT));
    put(128, &[RESET_VALUE]);
    put(131, &[5]);
    put(140, &dsdt.to_le_bytes());
    put(244, &port(SLEEP_CONTROL_PORT));
    put(256, &port(SLEEP_STATUS_PORT));
    table(*b"FACP", 6, &body)
}

/// A generic address structure for an I/O port of one byte.
fn port(number: u16) -> [u8; 12] {
    let mut address = [1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    address[4..6].copy_from_slice(&number.to_le_bytes());
    address
}

fn madt(vcpus: u8) -> Vec<u8> {
    let mut body = LOCAL_APIC.to_le_bytes().to_vec();
    body.extend_from_slice(&0u32.to_le_bytes());
    for id in 0..vcpus {
        // A processor's local APIC, enabled.
        body.extend_from_slice(&[0, 8, id, id, 1, 0, 0, 0]);
    }
    body.extend_from_slice(&[1, 12, 0, 0]);
    body.extend_from_slice(&IO_APIC.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    body
}

fn dsdt(devices: u8) -> Vec<u8> {
    let [low, high] = SERIAL_PORT.to_le_bytes();
    let mut resources = vec![0x47, 1, low, high, low, high, 1, 8];
    resources.extend_from_slice(&interrupt(SERIAL_IRQ));
    let mut serial = b"COM1".to_vec();
    // PNP0501, packed as an EISA id.
    serial.extend_from_slice(&[0x08, b'_', b'H', b'I', b'D', 0x0c, 0x41, 0xd0, 0x05, 0x01]);
    serial.extend_from_slice(b"\x08_UID\x00");
    serial.extend_from_slice(b"\x08_CRS");
    serial.extend_from_slice(&buffer(&resources));
    let mut scope = b"\\_SB_".to_vec();
    scope.extend_from_slice(&[0x5b, 0x82]);
    scope.extend_from_slice(&packaged(&serial));
    for index in 0..devices {
        scope.extend_from_slice(&[0x5b, 0x82]);
        scope.extend_from_slice(&packaged(&virtio(index)));
    }

    let mut body = vec![0x10];
    body.extend_from_slice(&packaged(&scope));
    body.extend_from_slice(b"\x08_S5_\x12");
    body.extend_from_slice(&packaged(&[1, 0x0a, SLEEP_TYPE_OFF]));
    body
}

/// A virtio-mmio device, which Linux knows by the id LNRO0005.
fn virtio(index: u8) -> Vec<u8> {
    let base = u32::try_from(DEVICES + u64::from(index) * mmio::SIZE).unwrap_or(u32::MAX);
    let mut resources = vec![0x86, 9, 0, 1];
    resources.extend_from_slice(&base.to_le_bytes());
    resources.extend_from_slice(&[0, 0x10, 0, 0]);
    resources.extend_from_slice(&interrupt(DEVICE_IRQ + u32::from(index)));
    let mut device = vec![b'V', b'R', b'0' + index / 10, b'0' + index % 10];
    device.extend_from_slice(b"\x08_HID\x0dLNRO0005\x00");
    device.extend_from_slice(&[0x08, b'_', b'U', b'I', b'D', 0x0a, index]);
    device.extend_from_slice(b"\x08_CCA\x01\x08_CRS");
    device.extend_from_slice(&buffer(&resources));
    device
}

/// An extended interrupt descriptor: consumed, edge-triggered, active high, not shared.
fn interrupt(number: u32) -> [u8; 9] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x89, 6, 0, 3, 1, a, b, c, d]
}

/// A resource template.
fn buffer(resources: &[u8]) -> Vec<u8> {
    let size = u8::try_from(resources.len() + 2).unwrap_or(u8::MAX);
    let mut content = vec![0x0a, size];
    content.extend_from_slice(resources);
    content.extend_from_slice(&[0x79, 0]);
    let mut bytes = vec![0x11];
    bytes.extend_from_slice(&packaged(&content));
    bytes
}

/// `content` behind its package length (ACPI 6.5, section 20.2.4), which counts itself.
fn packaged(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = Vec::new();
    let low = |value: usize, mask: usize| u8::try_from(value & mask).unwrap_or(0);
    if length + 1 < 1 << 6 {
        bytes.push(low(length + 1, 0x3f));
    } else if length + 2 < 1 << 12 {
        let total = length + 2;
        bytes.extend_from_slice(&[0x40 | low(total, 0xf), low(total >> 4, 0xff)]);
    } else {
        let total = length + 3;
        bytes.extend_from_slice(&[
            0x80 | low(total, 0xf),
            low(total >> 4, 0xff),
            low(total >> 12, 0xff),
        ]);
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_sums_to_zero_and_lies_where_its_parent_says() {
        let bytes = tables(254, 19);
        assert!(ACPI + bytes.len() as u64 <= HIGH_MEMORY);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let at = |address: u64| usize::try_from(address - ACPI).unwrap();
        let check = |start: usize, signature: &[u8]| {
            assert_eq!(&bytes[start..start + 4], signature);
            let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap());
            assert_eq!(sum(&bytes[start..start + length as usize]), 0);
        };
        let xsdt = at(word(24));
        check(xsdt, b"XSDT");
        let fadt = at(word(xsdt + 36));
        check(fadt, b"FACP");
        check(at(word(xsdt + 44)), b"APIC");
        check(at(word(fadt + 140)), b"DSDT");
    }

    #[test]
    fn a_package_length_counts_its_own_bytes() {
        assert_eq!(packaged(&[0; 62])[0], 63);
        assert_eq!(packaged(&[0; 63])[..2], [0x41, 4]);
        assert_eq!(packaged(&[0; 5000]).len(), 5003);
    }
}
