//! The harness of the end-to-end tests: both services started in-process on port 0, fake backends that replay
//! recordings and write down what they saw, and a fake graphics card.

pub mod invokeai;
