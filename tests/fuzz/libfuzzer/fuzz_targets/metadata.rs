#![no_main]

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, dmremap_fuzz::MEMORY);

libfuzzer_sys::fuzz_target!(|data: &[u8]| dmremap_fuzz::metadata(data));
