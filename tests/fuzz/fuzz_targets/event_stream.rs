#![no_main]

fuzz::fuzz!(gateway::fuzzing::event_stream);
