#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rushline_fuzz::dtm_request(bytes));
