//! Recognising what is on the data disk, by its first bytes. They are hostile until checked: a disk may come from
//! anywhere, and containers can write to their file systems.

/// Bytes that [`Content::of`] wants to see.
pub(crate) const HEAD: usize = 4096;

/// The label of the file system that the agent makes.
pub(crate) const LABEL: &str = "cove-data";

/// What the first block holds while the file system is being written, so that an interrupted start can tell its own
/// half-made file system from somebody's data.
pub(crate) const MAKING: &[u8] = b"cove: the data file system is being made\n";

/// What is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing in the first block. The rest is still to be looked at.
    Empty,
    /// The agent was interrupted while it made the file system.
    Unfinished,
    /// The agent's own file system.
    Ours(Superblock),
    /// Something else, in words.
    Foreign(String),
}

/// What the agent needs to know of an ext4 file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Size in bytes.
    pub(crate) size: u64,
    /// Whether the kernel noted an error, or the file system was not closed in order, so that a check is due. (A
    /// journal that is still to be replayed is no such thing.)
    pub(crate) needs_check: bool,
}

// Offsets in the superblock, which is 1024 bytes into the disk (Documentation/filesystems/ext4/super.rst).
const START: usize = 1024;
const BLOCKS_LOW: usize = 0x04;
const LOG_BLOCK_SIZE: usize = 0x18;
const MAGIC: usize = 0x38;
const STATE: usize = 0x3a;
const INCOMPATIBLE: usize = 0x60;
const VOLUME_NAME: usize = 0x78;
const VOLUME_NAME_LEN: usize = 16;
const BLOCKS_HIGH: usize = 0x150;

const EXT4_MAGIC: u16 = 0xef53;
const STATE_CLEAN: u16 = 0x1;
const STATE_ERRORS: u16 = 0x2;
const INCOMPATIBLE_64BIT: u32 = 0x80;
/// Block sizes are 1024 << n; the kernel takes up to 64 KiB.
const MAX_LOG_BLOCK_SIZE: u32 = 6;

impl Content {
    /// Reads the disk's first bytes.
    pub(crate) fn of(head: &[u8; HEAD]) -> Self {
        if head.iter().all(|&byte| byte == 0) {
            return Self::Empty;
        }
        if head.starts_with(MAKING) && head[MAKING.len()..].iter().all(|&byte| byte == 0) {
            return Self::Unfinished;
        }
        let superblock = &head[START..];
        if u16_at(superblock, MAGIC) != EXT4_MAGIC {
            return Self::Foreign("data of an unknown kind".into());
        }
        let name = &superblock[VOLUME_NAME..VOLUME_NAME + VOLUME_NAME_LEN];
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        if name != LABEL.as_bytes() {
            let name = String::from_utf8_lossy(name);
            return Self::Foreign(format!(
                "an ext file system with the label \"{}\"",
                name.escape_debug()
            ));
        }
        match Superblock::read(superblock) {
            Some(superblock) => Self::Ours(superblock),
            None => Self::Foreign("a damaged ext4 superblock".into()),
        }
    }
}

impl Superblock {
    fn read(superblock: &[u8]) -> Option<Self> {
        let log_block_size = u32_at(superblock, LOG_BLOCK_SIZE);
        if log_block_size > MAX_LOG_BLOCK_SIZE {
            return None;
        }
        let mut blocks = u64::from(u32_at(superblock, BLOCKS_LOW));
        if u32_at(superblock, INCOMPATIBLE) & INCOMPATIBLE_64BIT != 0 {
            blocks |= u64::from(u32_at(superblock, BLOCKS_HIGH)) << 32;
        }
        let state = u16_at(superblock, STATE);
        Some(Self {
            size: blocks.checked_mul(1024 << log_block_size)?,
            needs_check: state & STATE_CLEAN == 0 || state & STATE_ERRORS != 0,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(change: impl FnOnce(&mut [u8])) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[START + MAGIC..][..2].copy_from_slice(&EXT4_MAGIC.to_le_bytes());
        head[START + STATE..][..2].copy_from_slice(&STATE_CLEAN.to_le_bytes());
        head[START + LOG_BLOCK_SIZE] = 2;
        head[START + BLOCKS_LOW..][..4].copy_from_slice(&1000_u32.to_le_bytes());
        head[START + VOLUME_NAME..][..LABEL.len()].copy_from_slice(LABEL.as_bytes());
        change(&mut head[START..]);
        head
    }

    #[test]
    fn our_clean_file_system_is_recognised_with_its_size() {
        let superblock = Superblock {
            size: 4_096_000,
            needs_check: false,
        };
        assert_eq!(Content::of(&head(|_| {})), Content::Ours(superblock));
    }

    #[test]
    fn errors_and_a_missing_clean_mark_ask_for_a_check() {
        for state in [0, STATE_ERRORS, STATE_CLEAN | STATE_ERRORS] {
            let Content::Ours(superblock) = Content::of(&head(|s| s[STATE] = state.to_le_bytes()[0])) else {
                panic!("not recognised");
            };
            assert!(superblock.needs_check, "state {state}");
        }
    }

    #[test]
    fn the_high_half_of_the_size_counts_only_with_its_feature() {
        let size = |feature: u32| {
            let content = Content::of(&head(|s| {
                s[BLOCKS_HIGH] = 1;
                s[INCOMPATIBLE..][..4].copy_from_slice(&feature.to_le_bytes());
            }));
            match content {
                Content::Ours(superblock) => superblock.size,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(size(INCOMPATIBLE_64BIT), ((1 << 32) + 1000) * 4096);
        assert_eq!(size(0), 1000 * 4096);
    }

    #[test]
    fn another_label_is_somebody_elses_data() {
        let other = Content::of(&head(|s| s[VOLUME_NAME..][..10].copy_from_slice(b"cove-datax")));
        assert_eq!(
            other,
            Content::Foreign("an ext file system with the label \"cove-datax\"".into())
        );
    }

    #[test]
    fn an_impossible_block_size_is_damage() {
        assert!(matches!(
            Content::of(&head(|s| s[LOG_BLOCK_SIZE] = 7)),
            Content::Foreign(_)
        ));
    }

    #[test]
    fn an_interrupted_making_is_recognised_and_only_exactly() {
        let mut head = [0; HEAD];
        assert_eq!(Content::of(&head), Content::Empty);
        head[..MAKING.len()].copy_from_slice(MAKING);
        assert_eq!(Content::of(&head), Content::Unfinished);
        head[HEAD - 1] = 1;
        assert!(matches!(Content::of(&head), Content::Foreign(_)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_in_a_superblock_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0x160)) {
            let content = Content::of(&head(|s| {
                for (at, byte) in bytes.iter().enumerate() {
                    if !(VOLUME_NAME..VOLUME_NAME + VOLUME_NAME_LEN).contains(&at) && at / 2 != MAGIC / 2 {
                        s[at] = *byte;
                    }
                }
            }));
            prop_assert!(!matches!(content, Content::Empty | Content::Unfinished));
        }
    }
}
