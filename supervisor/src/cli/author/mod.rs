//! What authors of functions need: a directory to begin with (`sublet new`), and one call in the very cage
//! (`sublet run-local`).

pub mod local;
pub mod new;
mod project;
mod templates;
