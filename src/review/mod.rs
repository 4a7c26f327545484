//! Dead letters after they died: all of them in a table, where they can be searched, grouped and decided about.

pub mod mirror;
