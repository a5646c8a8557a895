//! Goal: no input that was ever found, and no seed, fails again. Method: give each committed file to its target.

use std::path::Path;

#[test]
fn every_committed_input_is_fine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for (name, target) in relay_fuzz::TARGETS {
        for kind in ["corpus", "regressions"] {
            let Ok(directory) = std::fs::read_dir(root.join(kind).join(name)) else {
                continue;
            };
            for entry in directory {
                let path = entry.expect("the directory can be read").path();
                println!("{}", path.display());
                target(&std::fs::read(&path).expect("the input can be read"));
                count += 1;
            }
        }
    }
    assert!(count >= relay_fuzz::TARGETS.len(), "each target has a seed");
}
