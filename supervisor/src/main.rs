#![allow(dead_code)]
//! x
mod cgroups;
mod config;
mod nursery;
mod sys;
mod worker { pub mod channel; }
fn main() {}
