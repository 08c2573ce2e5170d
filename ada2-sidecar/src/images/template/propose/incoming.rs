//! The inputs that take pictures.

use crate::images::template::NodeInput;

/// An input that takes a picture.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) at: NodeInput,
    /// Inputs with the same key take the same picture.
    pub(super) key: String,
    pub(super) role: Role,
}

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Picture,
    Mask,
    /// The mask as the transparency of the picture, in one file.
    Transparency,
}
