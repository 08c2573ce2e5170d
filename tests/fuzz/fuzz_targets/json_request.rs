#![no_main]

fuzz::fuzz!(gateway::fuzzing::json_request);
