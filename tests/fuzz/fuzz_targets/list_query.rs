#![no_main]

fuzz::fuzz!(gateway::fuzzing::list_query);
