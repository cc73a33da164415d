//! The client's verbs.

mod completions;
mod create;
mod limits;
mod manage;
mod run;
mod show;
mod tables;
mod version;

pub use completions::{answer_shell, completions, man, models, shells};
pub use create::create;
pub use limits::limits;
pub use manage::{copy, remove, stop};
pub use run::run;
pub use show::show;
pub use tables::{list, ps};
pub use version::version;
