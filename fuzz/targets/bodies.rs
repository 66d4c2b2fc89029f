//! The fuzz target of [`jiscord_fuzz::bodies`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jiscord_fuzz::bodies(data));
