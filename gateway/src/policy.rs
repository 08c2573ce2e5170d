//! The questions that every request is asked, in this order, and nothing else decides:
//!
//! ```text
//! what is asked ([`demand`]) → may it go there ([`catalog`]) → is it up (`health`) → is there room ([`admission`])
//! ```
//!
//! Pure: no HTTP library, no clock, no wait.

pub(crate) mod admission;
pub(crate) mod catalog;
pub(crate) mod demand;
pub(crate) mod legacy;
