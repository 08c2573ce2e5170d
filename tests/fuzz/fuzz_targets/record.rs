#![no_main]

fuzz::fuzz!(gateway::fuzzing::record);
