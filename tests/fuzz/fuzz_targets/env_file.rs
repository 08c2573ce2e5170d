#![no_main]

fuzz::fuzz!(gateway::fuzzing::env_file);
