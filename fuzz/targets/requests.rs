//! The fuzz target of [`jiscord_fuzz::requests`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jiscord_fuzz::requests(data));
