//! The fake library as the wrapper sees it: every value that a scenario can have, read through `nvml_wrapper`, which
//! has its layouts from NVIDIA's header and not from us.

mod events; // XIDs
mod machine; // the harness
mod patience; // slow calls, hanging calls, and what is kept between calls
mod readings; // every value
mod troubles; // what fails, and how
