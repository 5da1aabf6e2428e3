//! Kernels of a few dozen bytes, so that a machine can be tested to its end without an image.
//!
//! Each is an ELF file that QEMU boots like Linux, by the PVH protocol: 32-bit protected mode, flat segments. It writes
//! a message to the first serial port and then does one thing.

/// What a kernel does after its message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// Nothing, for ever.
    Idle,
    /// Powers off through ACPI's registers.
    PowerOff,
    /// Resets the machine, every time.
    Reset,
    /// Resets the machine the first time, then idles.
    ResetOnce,
    /// Writes the message again, for ever.
    Again,
}

/// Where the kernel is loaded, and entered.
const LOAD: u32 = 0x10_0000;

/// A word in memory that a reset leaves as it is.
const FLAG: u32 = 0x30_0000;

/// An ELF kernel that writes `message` and then does `then`.
pub(crate) fn build(message: &str, then: Then) -> Vec<u8> {
    let idle: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfc]; // cli; hlt; jmp back
    let reset: &[u8] = &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee]; // mov dx, 0xcf9; mov al, 6; out dx, al
    // cld; mov esi, <message>; mov dx, 0x3f8; next: lodsb; test al, al; jz done; out dx, al; jmp next; done:
    let mut code = vec![0xfc, 0xbe, 0, 0, 0, 0, 0x66, 0xba, 0xf8, 0x03];
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]);
    match then {
        Then::Idle => {}
        // mov dx, 0x604; mov ax, 0x2000; out dx, ax: sleep state 5 of the pc board.
        Then::PowerOff => code.extend([0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef]),
        Then::Reset => code.extend(reset),
        Then::ResetOnce => {
            let word = |opcode: [u8; 2]| [&opcode[..], &FLAG.to_le_bytes(), b"cove"].concat();
            code.extend(word([0x81, 0x3d])); // cmp dword [FLAG], "cove"
            code.extend([0x74, u8::try_from(10 + reset.len()).unwrap()]); // je idle
            code.extend(word([0xc7, 0x05])); // mov dword [FLAG], "cove"
            code.extend(reset);
        }
        Then::Again => {
            let back = -i32::try_from(code.len() + 5).unwrap();
            code.push(0xe9); // jmp to the start
            code.extend(back.to_le_bytes());
        }
    }
    code.extend(idle);
    let message_at = LOAD + u32::try_from(code.len()).unwrap();
    code[2..6].copy_from_slice(&message_at.to_le_bytes());
    code.extend(message.as_bytes());
    code.push(0);
    elf(&code)
}

/// Wraps `code` in an ELF file with the note that names its PVH entry.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 2 * 32;
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
    let mut note = Vec::new();
    for word in [4, 4, XEN_ELFNOTE_PHYS32_ENTRY] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"Xen\0");
    note.extend(LOAD.to_le_bytes());
    let note_size = u32::try_from(note.len()).unwrap();
    let code_size = u32::try_from(code.len()).unwrap();

    let mut file = b"\x7fELF\x01\x01\x01".to_vec(); // 32 bits, little-endian
    file.resize(16, 0);
    for half in [2u16, 3] {
        file.extend(half.to_le_bytes()); // an executable, for the 80386
    }
    for word in [1, LOAD, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word)); // version, entry, program headers' offset, no sections, no flags
    }
    for half in [52u16, 32, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes()); // sizes: header, program header, their number
    }
    let code_at = HEADERS + note_size;
    for header in [
        [PT_NOTE, HEADERS, 0, 0, note_size, note_size, 4, 4],
        [PT_LOAD, code_at, LOAD, LOAD, code_size, code_size, 7, 4],
    ] {
        for word in header {
            file.extend(u32::to_le_bytes(word));
        }
    }
    file.extend(note);
    file.extend(code);
    file
}
