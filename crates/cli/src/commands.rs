//! The client's verbs.

mod bundle;
mod completions;
mod create;
mod limits;
mod manage;
mod progress;
mod run;
mod show;
mod tables;
mod transfer;
mod version;

pub use bundle::{load, save};
pub use completions::{answer_shell, completions, man, models, shells};
pub use create::create;
pub use limits::LimitsErrand;
pub use manage::{copy, remove, stop};
pub use run::run;
pub use show::show;
pub use tables::{list, ps};
pub use transfer::{pull, push};
pub use version::version;
