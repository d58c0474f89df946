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
        let path = if file.starts_with("src/") {
            root.join(format!("{file}.rs"))
        } else {
            root.join("tests").join(format!("{file}.rs"))
        };
        let source = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{name}: {}: {e}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "{name} does not exist");
        named += 1;
    }
    assert!(named > 100, "only {named} tests are named");
}
