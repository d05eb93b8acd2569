//! What `perigee-world` says to who asks how to use it.

use std::process::Command;

#[test]
fn help_is_printed_to_who_asks_for_it_and_beside_what_is_wrong() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perigee-world")).args(arguments).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), out, err)
    };
    for arguments in [&["--help"][..], &["-h"], &["soak", "--help"], &["soak", "--seed", "7", "-h"]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*err), (Some(0), ""), "{arguments:?}");
        assert!(out.starts_with("Usage: perigee-world soak [--minutes N]"), "{out}");
        assert!(out.contains("\nExample:\n  perigee-world soak --minutes 10"), "{out}");
    }
    let (code, out, err) = run(&["soak", "--minutes"]);
    assert_eq!((code, &*out), (Some(2), ""));
    assert!(err.starts_with("perigee-world: --minutes wants a value\nUsage: "), "{err}");
}
