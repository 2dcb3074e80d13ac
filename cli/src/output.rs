//! Output of the commands: console, tables, errors, reports and films.

pub mod console;
pub mod failure;
pub mod film;
pub mod names;
pub mod new_file;
pub mod outputs;
pub mod quote;
pub mod report;
pub mod table;
