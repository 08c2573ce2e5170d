//! The families that ship: what each can do, what it gets from a request, and what it says about it. Every built-in graph
//! runs, on an engine that has just what it needs.

mod features;
mod installation;
mod presets;
mod references;
mod request;
