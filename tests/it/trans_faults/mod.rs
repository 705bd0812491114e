//! Global transactions under a server that dies: at every step, at any moment, beside others. However it went, the end
//! and what the branches did agree.

mod book;
mod flow;
mod nodes;
mod points;
mod random;
mod target;
