//! The fuzz target of [`jiscord_fuzz::frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jiscord_fuzz::frames(data));
