//! Table of contents: one module per behaviour.
