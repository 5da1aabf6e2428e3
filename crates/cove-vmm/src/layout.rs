//! Where everything lies in the guest's physical address space, in bytes.

/// The PVH start info, with the module list and the memory map behind it.
pub const START_INFO: u64 = 0x6000;
/// The kernel's command line, terminated by a zero.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of it: `COMMAND_LINE_SIZE` of Linux on x86, the zero included.
pub const COMMAND_LINE_SIZE: usize = 2048;
/// End of the memory that a PC has below its first megabyte's hole.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The ACPI tables, in the area that an operating system searches for their root.
pub const ACPI: u64 = 0xe_0000;
/// Where the ACPI tables have to end, and the memory that the kernel is loaded to begins.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// The 32-bit hole: no memory from here to [`HOLE_END`].
pub const HOLE: u64 = 0xc000_0000;
/// Memory goes on here.
pub const HOLE_END: u64 = 0x1_0000_0000;
/// The registers of the I/O APIC; the hardware's convention.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The registers of each processor's local APIC; the hardware's convention.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM on Intel processors needs for real mode, in the hole and below the firmware's place.
pub const TSS: usize = 0xfffb_d000;

/// The serial port's registers, the usual place of the first one.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Its interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// Writing [`RESET_VALUE`] here restarts the machine.
pub const RESET_PORT: u16 = 0x600;
/// See [`RESET_PORT`].
pub const RESET_VALUE: u8 = 1;
/// ACPI's sleep control register.
pub const SLEEP_CONTROL_PORT: u16 = 0x604;
/// ACPI's sleep status register; always zero, since nothing ever wakes up here.
pub const SLEEP_STATUS_PORT: u16 = 0x605;
/// The sleep type that means power-off, as the tables name it.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// The command port of a PC's keyboard controller, which is not there; Linux resets through it when told `reboot=k`.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;
/// The command that pulses the processor's reset line.
pub const KEYBOARD_RESET: u8 = 0xfe;
/// The registers of the first virtio device, in the hole; the others follow, [`crate::mmio::SIZE`] apart.
pub const DEVICES: u64 = 0xd000_0000;
/// The interrupt of the first virtio device; the others follow.
pub const DEVICE_IRQ: u32 = 5;
/// Most virtio devices: the I/O APIC has 24 inputs.
pub const MAX_DEVICES: u8 = 19;
