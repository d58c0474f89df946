//! `docs/promises.md` and the tests agree: every test that a row names exists, and every comment
//! `// row N` (`// rows N, M`) above a test names rows that list this test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The tests of each row, as the document names them.
fn rows() -> HashMap<u32, Vec<String>> {
    let mut rows: HashMap<u32, Vec<String>> = HashMap::new();
    let mut row = None;
    for line in read(&root().join("docs/promises.md")).lines() {
        if let Some((number, _)) = line.strip_prefix("- **").and_then(|l| l.split_once(".**")) {
            let number = number.parse().unwrap();
            assert!(rows.insert(number, Vec::new()).is_none(), "row {number} is there twice");
            row = Some(number);
        } else if let Some(test) = line.strip_prefix("  - `").and_then(|l| l.strip_suffix('`')) {
            rows.get_mut(&row.expect("a test above all rows")).unwrap().push(test.to_owned());
        }
    }
    rows
}

/// What the document calls the source files that have tests, and their text.
fn sources() -> HashMap<String, String> {
    let mut sources = HashMap::new();
    for place in ["tests/all", "tests/allocations", "src"] {
        let mut folders = vec![root().join(place)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && !path.ends_with("main.rs")
                {
                    let from = if place == "src" { root() } else { root().join(place) };
                    let name = path.strip_prefix(from).unwrap().with_extension("");
                    let name = name.to_str().unwrap().replace('\\', "/");
                    assert!(sources.insert(name, read(&path)).is_none(), "two of {path:?}");
                }
            }
        }
    }
    sources
}

/// Each comment of the form `// row N`, by the name of its test and the rows that it names.
fn comments(file: &str, source: &str) -> Vec<(String, Vec<u32>)> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((before, comment)) = line.split_once("// row") else { continue };
        let numbers = comment.strip_prefix('s').unwrap_or(comment).strip_prefix(' ');
        let Some(numbers) = numbers.filter(|n| n.starts_with(|c: char| c.is_ascii_digit())) else {
            continue;
        };
        assert!(before.trim().is_empty(), "{file}: `{line}` belongs above its test");
        let numbers = numbers.split(':').next().unwrap().split(',');
        let numbers: Result<_, _> = numbers.map(|n| n.trim().parse()).collect();
        let numbers = numbers.unwrap_or_else(|_| panic!("{file}: which row is `{line}`?"));
        let function = lines.clone().find_map(|line| line.trim().strip_prefix("fn "));
        let test = function.and_then(|f| f.split('(').next()).expect("a comment above nothing");
        found.push((format!("{file}::{test}"), numbers));
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_test_that_a_row_names_exists() {
    let sources = sources();
    let mut named = 0;
    for (row, tests) in rows() {
        assert!(!tests.is_empty(), "row {row} has no test");
        for name in tests {
            let (file, test) = name.rsplit_once("::").unwrap();
            let source = sources.get(file).unwrap_or_else(|| panic!("row {row}: no file {file}"));
            let exists = source.contains(&format!("fn {test}("));
            assert!(exists, "row {row}: {name} does not exist");
            named += 1;
        }
    }
    assert!(named > 100, "only {named} tests are named");
}

#[test]
fn every_comment_above_a_test_names_rows_that_list_it() {
    let rows = rows();
    let mut missing = Vec::new();
    let mut checked = 0;
    for (file, source) in sources() {
        for (test, numbers) in comments(&file, &source) {
            for number in numbers {
                let listed = rows.get(&number).is_some_and(|tests| tests.contains(&test));
                if !listed {
                    missing.push(format!("row {number} does not list {test}"));
                }
                checked += 1;
            }
        }
    }
    assert!(missing.is_empty(), "docs/promises.md: {missing:#?}");
    assert!(checked > 100, "only {checked} comments were found");
}
