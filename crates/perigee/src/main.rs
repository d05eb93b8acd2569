//! perigee
fn main() {}
