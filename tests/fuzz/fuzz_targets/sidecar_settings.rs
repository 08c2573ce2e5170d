#![no_main]

fuzz::fuzz!(ada2_sidecar::fuzzing::sidecar_settings);
