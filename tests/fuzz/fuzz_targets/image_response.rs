#![no_main]

fuzz::fuzz!(gateway::fuzzing::image_response);
