//! The fake library as the wrapper sees it: every value that a scenario can have, read through `nvml_wrapper`, which
//! has its layouts from NVIDIA's header and not from us.

mod delays; // slow calls, hanging calls, and what is kept between calls
mod events; // XIDs
mod failures;
mod machine; // the harness
mod readings; // every value // what fails, and how
