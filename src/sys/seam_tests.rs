//! The seam holds: code above this folder names neither mio, nor socket2, nor a clock, a thread,
//! the resolver or an error number of the system.

use std::fs;
use std::path::{Path, PathBuf};

const FORBIDDEN: &[&str] = &[
    "mio::",
    "socket2::",
    "SockRef",
    "to_socket_addrs",
    "Instant::now()",
    "SystemTime::now()",
    "thread::",
    "libc::",
    "use nix",
];

/// Custom sources are mio's by definition; `lib.rs` exports mio for them.
/// `check.rs` asks for the name of the test that it runs in.
const EXEMPT: &[&str] = &["src/source.rs", "src/lib.rs", "src/sim/check.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["sys", "tests", "testkit"].contains(&name) {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.contains("test") && name != "scripted.rs" {
            found.push(path);
        }
    }
}

#[test]
fn nothing_above_the_seam_names_the_system() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 50, "the sources are found");
    let mut leaks = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in product.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let leak = FORBIDDEN.iter().find(|word| code.contains(*word));
            if let Some(word) = leak
                && !EXEMPT.contains(&&*name)
            {
                leaks.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}
