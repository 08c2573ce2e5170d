#![no_main]

fuzz::fuzz!(ada2_sidecar::fuzzing::edit_form);
