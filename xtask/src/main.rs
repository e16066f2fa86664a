//! The caretaker.

fn main() {}
