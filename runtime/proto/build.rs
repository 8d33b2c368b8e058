//! Generates the Rust side of the contracts in `proto/`, without an installed
//! protobuf compiler.
//!
//! Three passes over the same files. The first writes the messages of the published
//! contract and its client. The second writes the clients that leave past events
//! encoded, and the messages of our own contract. The third writes the servers, with
//! what they stream mapped to types that carry bytes which are already encoded.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const CONTRACTS: [&str; 2] = ["orchestrator_service.proto", "mainspring.proto"];
const CONTRACT_DIRECTORY: &str = "proto";

/// The package of our own contract; the published one has none.
const OWN_PACKAGE: &str = "mainspring.v1";

/// Messages that the server sends as bytes it has already encoded.
const RAW_RESPONSES: [(&str, &str); 2] = [
    ("WorkItem", "crate::RawWorkItem"),
    ("HistoryChunk", "crate::RawHistoryChunk"),
];

/// The field whose elements a client may want to leave encoded, and the messages on the way to it.
const LAZY_FIELD: (&str, &str) = ("OrchestratorRequest", "pastEvents");
const LAZY_MESSAGES: [&str; 2] = ["WorkItem", "OrchestratorRequest"];

/// Messages of our own contract that hold messages which the server has already encoded.
const RAW_HOLDERS: [&str; 2] = ["ToWorker", "Item"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={CONTRACT_DIRECTORY}");
    let output = PathBuf::from(env::var("OUT_DIR")?);

    // Reflection clients resolve imports too, so the set holds the well-known types.
    let mut compiler = protox::Compiler::new([CONTRACT_DIRECTORY])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(CONTRACTS)?;
    let contracts = compiler.file_descriptor_set();
    fs::write(output.join("descriptor_set.bin"), contracts.encode_to_vec())?;

    let contracts = without_deprecation(contracts);
    write_messages_and_client(contracts.clone(), &output)?;
    write_lazy_clients(contracts.clone(), &output)?;
    write_servers(contracts, &output)
}

/// Serving older workers is on purpose: a deprecated field must not warn here.
fn without_deprecation(mut contracts: FileDescriptorSet) -> FileDescriptorSet {
    let fields = contracts
        .file
        .iter_mut()
        .flat_map(|file| file.message_type.iter_mut())
        .flat_map(|message| message.field.iter_mut());
    for options in fields.filter_map(|field| field.options.as_mut()) {
        options.deprecated = None;
    }
    contracts
}

fn write_messages_and_client(
    mut contracts: FileDescriptorSet,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    contracts.file.retain(|file| file.package() != OWN_PACKAGE);
    pass(output, "messages")?
        .build_server(false)
        .btree_map(".")
        .compile_fds(contracts)?;
    Ok(())
}

fn write_lazy_clients(
    mut contracts: FileDescriptorSet,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut builder = pass(output, "lazy")?.build_server(false).btree_map(".");
    for name in names(&contracts, "") {
        if !LAZY_MESSAGES.contains(&name.as_str()) {
            builder = builder.extern_path(format!(".{name}"), format!("crate::{name}"));
        }
    }
    let (message, field) = LAZY_FIELD;
    let lazy = contracts
        .file
        .iter_mut()
        .flat_map(|file| file.message_type.iter_mut())
        .filter(|found| found.name() == message)
        .flat_map(|message| message.field.iter_mut())
        .find(|found| found.name() == field)
        .ok_or("the contract has no past events")?;
    // On the wire an embedded message and a run of bytes are the same.
    lazy.set_type(Type::Bytes);
    lazy.type_name = None;
    builder
        .bytes(format!(".{message}.{field}"))
        .compile_fds(contracts)?;
    Ok(())
}

fn write_servers(contracts: FileDescriptorSet, output: &Path) -> Result<(), Box<dyn Error>> {
    let mut builder = pass(output, "server")?.build_client(false);
    for name in names(&contracts, "") {
        let path = RAW_RESPONSES
            .iter()
            .find(|(raw, _)| *raw == name)
            .map_or_else(|| format!("crate::{name}"), |(_, path)| (*path).to_owned());
        builder = builder.extern_path(format!(".{name}"), path);
    }
    for name in names(&contracts, OWN_PACKAGE) {
        if !RAW_HOLDERS.contains(&name.as_str()) {
            let path = format!("crate::v1::{name}");
            builder = builder.extern_path(format!(".{OWN_PACKAGE}.{name}"), path);
        }
    }
    builder.compile_fds(contracts)?;
    Ok(())
}

/// A pass that writes into a folder of its own.
fn pass(output: &Path, folder: &str) -> Result<tonic_prost_build::Builder, Box<dyn Error>> {
    let directory = output.join(folder);
    fs::create_dir_all(&directory)?;
    Ok(tonic_prost_build::configure().out_dir(directory))
}

/// Messages and enumerations of a package, by name.
fn names(contracts: &FileDescriptorSet, package: &str) -> Vec<String> {
    let of_file = |file: &FileDescriptorProto| {
        let messages = file.message_type.iter().map(|message| message.name());
        let enumerations = file.enum_type.iter().map(|enumeration| enumeration.name());
        messages
            .chain(enumerations)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    contracts
        .file
        .iter()
        .filter(|file| file.package() == package)
        .flat_map(of_file)
        .collect()
}
