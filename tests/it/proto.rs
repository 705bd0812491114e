//! The committed code of `src/proto/` is what `proto/` says. `RUSHLINE_WRITE_PROTO=1` has it written instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder of `proto/` and what is made of it.
struct Set {
    /// What imports are relative to.
    root: &'static str,
    /// Below the root; empty for the root itself.
    folder: &'static str,
    servers: bool,
    /// Also this file in `src/proto/`, for server reflection.
    descriptors: Option<&'static str>,
}

const SETS: &[Set] = &[
    Set { root: "dtm", folder: "", servers: true, descriptors: Some("dtm.fds") },
    Set { root: "etcd", folder: "", servers: false, descriptors: None },
    Set { root: "", folder: "rushline/v1", servers: true, descriptors: Some("rushline.fds") },
];

/// The files of one set by name, generated anew. Whatever has another package lands in another file.
fn generate(set: &Set) -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto").join(set.root);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root.join(set.folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    let compile = |comments: bool| {
        let mut compiler = protox::Compiler::new([&root]).unwrap();
        compiler.include_imports(true).include_source_info(comments);
        compiler.open_files(&files).unwrap_or_else(|error| panic!("{error:?}"));
        compiler
    };
    let made = tempfile::tempdir().unwrap();
    let builder = tonic_prost_build::configure().build_server(set.servers).bytes(".").out_dir(made.path());
    builder.compile_fds(compile(true).file_descriptor_set()).unwrap();
    let mut code: BTreeMap<String, Vec<u8>> = std::fs::read_dir(made.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    if let Some(name) = set.descriptors {
        code.insert(name.to_owned(), compile(false).encode_file_descriptor_set());
    }
    code
}

#[test]
fn the_committed_code_is_what_the_protos_say() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto");
    let write = std::env::var_os("RUSHLINE_WRITE_PROTO").is_some();
    for (name, made) in SETS.iter().flat_map(generate) {
        let path = committed.join(&name);
        if write {
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read(&path).unwrap_or_default();
        assert!(there == made, "src/proto/{name} is not what proto/ says; proto/README.md tells how to make it anew");
    }
}
