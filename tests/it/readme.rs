//! What README.md says beyond its commands (`book/`) is held against the code here.

use std::path::Path;

const README: &str = include_str!("../../README.md");

/// What the interface can answer stands in the README, so that a buyer's client can be written from it.
#[test]
fn every_code_of_a_refusal_is_in_the_readme() {
    for refusal in rushline::sale::Refusal::ALL {
        assert!(README.contains(&format!("`{}`", refusal.code())), "README.md lacks `{}`", refusal.code());
    }
}

/// The matrix of SDKs says which versions work: those that the stories run, and no others.
#[test]
fn the_sdks_of_the_matrix_are_those_that_are_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pinned = |file: &str, before: &str| -> String {
        let text = std::fs::read_to_string(root.join("tests/sdk").join(file)).unwrap();
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file} names no {before}"));
        rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
    };
    for (sdk, version) in [
        ("github.com/dtm-labs/client", pinned("go/go.mod", "dtm-labs/client v")),
        ("dtmcli", pinned("python/requirements.txt", "dtmcli==")),
        ("github.com/zeromicro/go-zero", {
            let [new, classic] =
                ["gozero/go.mod", "gozero/classic.mod"].map(|file| pinned(file, "zeromicro/go-zero v"));
            format!("{new}, {classic}")
        }),
        ("io.github.dtm-labs:dtmcli-java", pinned("java/pom.xml", "<dtmcli>")),
    ] {
        let row = README.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{sdk}`")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {sdk}"));
        assert!(row.contains(&format!("| {version} |")), "{sdk} is tried at {version}, and README.md says: {row}");
    }
}
