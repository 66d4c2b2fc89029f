//! The fuzz target of [`jiscord_fuzz::tokens`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jiscord_fuzz::tokens(data));
