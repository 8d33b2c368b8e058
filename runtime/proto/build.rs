//! Generates the Rust side of `proto/orchestrator_service.proto`, without an
//! installed protobuf compiler.
//!
//! Two passes over one contract: the first writes the messages and the client,
//! the second writes the server alone, with the two streamed responses mapped to
//! types that carry bytes which are already encoded.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

const CONTRACT: &str = "orchestrator_service.proto";
const CONTRACT_DIRECTORY: &str = "proto";

/// Messages that the server sends as bytes it has already encoded.
const RAW_RESPONSES: [(&str, &str); 2] = [
    ("WorkItem", "crate::RawWorkItem"),
    ("HistoryChunk", "crate::RawHistoryChunk"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={CONTRACT_DIRECTORY}");
    let output = PathBuf::from(env::var("OUT_DIR")?);

    // Reflection clients resolve imports too, so the set holds the well-known types.
    let mut compiler = protox::Compiler::new([CONTRACT_DIRECTORY])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_file(CONTRACT)?;
    let contract = compiler.file_descriptor_set();
    fs::write(output.join("descriptor_set.bin"), contract.encode_to_vec())?;

    let contract = without_deprecation(contract);
    write_messages_and_client(contract.clone(), &output)?;
    write_server(contract, &output)
}

/// Serving older workers is on purpose: a deprecated field must not warn here.
fn without_deprecation(mut contract: FileDescriptorSet) -> FileDescriptorSet {
    let fields = contract
        .file
        .iter_mut()
        .flat_map(|file| file.message_type.iter_mut())
        .flat_map(|message| message.field.iter_mut());
    for options in fields.filter_map(|field| field.options.as_mut()) {
        options.deprecated = None;
    }
    contract
}

fn write_messages_and_client(
    contract: FileDescriptorSet,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    let directory = output.join("messages");
    fs::create_dir_all(&directory)?;
    tonic_prost_build::configure()
        .out_dir(directory)
        .build_server(false)
        .btree_map(".")
        .compile_fds(contract)?;
    Ok(())
}

fn write_server(contract: FileDescriptorSet, output: &Path) -> Result<(), Box<dyn Error>> {
    let directory = output.join("server");
    fs::create_dir_all(&directory)?;
    let mut builder = tonic_prost_build::configure()
        .out_dir(directory)
        .build_client(false);
    let own_files = contract
        .file
        .iter()
        .filter(|file| file.package().is_empty());
    for file in own_files {
        for message in &file.message_type {
            let name = message.name();
            let path = RAW_RESPONSES
                .iter()
                .find(|(raw, _)| *raw == name)
                .map_or_else(|| format!("crate::{name}"), |(_, path)| (*path).to_owned());
            builder = builder.extern_path(format!(".{name}"), path);
        }
        for enumeration in &file.enum_type {
            let name = enumeration.name();
            builder = builder.extern_path(format!(".{name}"), format!("crate::{name}"));
        }
    }
    builder.compile_fds(contract)?;
    Ok(())
}
