//! The target `ports` of `cove_tests::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cove_tests::fuzz::ports::fuzz(input));
