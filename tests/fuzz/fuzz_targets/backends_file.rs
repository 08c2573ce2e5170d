#![no_main]

fuzz::fuzz!(gateway::fuzzing::backends_file);
