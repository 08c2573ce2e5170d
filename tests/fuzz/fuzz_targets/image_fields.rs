#![no_main]

fuzz::fuzz!(ada2_sidecar::fuzzing::image_fields);
