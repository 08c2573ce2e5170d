#![no_main]

fuzz::fuzz!(gateway::fuzzing::form_request);
