//! The committed code of `src/proto/` is what `proto/` says. `RUSHLINE_WRITE_PROTO=1` has it written instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder of `proto/` and what is made of it.
struct Set {
    folder: &'static str,
    servers: bool,
    /// Also `src/proto/<folder>.fds`, for server reflection.
    descriptors: bool,
}

const SETS: &[Set] = &[
    Set { folder: "dtm", servers: true, descriptors: true },
    Set { folder: "etcd", servers: false, descriptors: false },
];

/// The files of one set by name, generated anew. Whatever has another package lands in another file.
fn generate(set: &Set) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto").join(set.folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    let compile = |comments: bool| {
        let mut compiler = protox::Compiler::new([&folder]).unwrap();
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
    if set.descriptors {
        code.insert(format!("{}.fds", set.folder), compile(false).encode_file_descriptor_set());
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
