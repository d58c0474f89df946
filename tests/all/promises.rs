//! `docs/promises.md` names tests; they have to exist.

use std::path::Path;

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let mut named = 0;
    for name in document.split('`').filter(|piece| piece.contains("::")) {
        let (file, test) = name.rsplit_once("::").unwrap();
        if file == "file" {
            continue; // the explanation at the top
        }
        let places = if file.starts_with("src/") {
            vec![root.join(format!("{file}.rs"))]
        } else {
            ["all", "allocations"].map(|of| root.join(format!("tests/{of}/{file}.rs"))).to_vec()
        };
        let source = places
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_else(|| panic!("{name}: there is none of {places:?}"));
        assert!(source.contains(&format!("fn {test}(")), "{name} does not exist");
        named += 1;
    }
    assert!(named > 100, "only {named} tests are named");
}
