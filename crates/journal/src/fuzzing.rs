//! What must hold for any bytes that etcd's gateway answers with, as functions that panic when it does not. Compiled for fuzzing
//! only (`--cfg fuzzing`); a target in `fuzz/` calls it.

pub use crate::etcd::fuzzing::etcd_answer;
