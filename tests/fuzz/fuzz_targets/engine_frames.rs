#![no_main]

fuzz::fuzz!(ada2_sidecar::fuzzing::engine_frames);
