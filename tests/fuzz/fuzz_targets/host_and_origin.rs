#![no_main]

fuzz::fuzz!(gateway::fuzzing::host_and_origin);
