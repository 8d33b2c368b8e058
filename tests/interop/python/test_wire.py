"""Our contract has the shape of the one that the published Python SDK carries.

Both descriptors are flattened to facts ("path of a thing" to "what is true of it")
and compared as a whole, so nothing is left out by forgetting to look at it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from durabletask.internal import orchestrator_service_pb2 as published_module
from google.protobuf import descriptor_pb2

PROTO = (
    Path(__file__).resolve().parents[3] / "runtime" / "proto" / "proto" / "orchestrator_service.proto"
)

LEGACY_ACTION = "older clients send the retired field 2 of the reuse policy (rule S-10.3)"
POLICY = "message OrchestrationIdReusePolicy"
ACTION_ENUM = f"{POLICY} / enum CreateOrchestrationAction"

# Facts that are ours alone, with the reason.
ONLY_OURS = {
    f"{POLICY} / field 2": LEGACY_ACTION,
    ACTION_ENUM: LEGACY_ACTION,
    f"{ACTION_ENUM} / value 0 ERROR": LEGACY_ACTION,
    f"{ACTION_ENUM} / value 1 IGNORE": LEGACY_ACTION,
    f"{ACTION_ENUM} / value 2 TERMINATE": LEGACY_ACTION,
}

# Facts of the published descriptor that we leave out, with the reason.
ONLY_PUBLISHED = {
    f"{POLICY} / reserved 2..2": LEGACY_ACTION,
}

Facts = dict[str, tuple]


def _field_facts(message, prefix: str) -> Facts:
    facts: Facts = {}
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        facts[f"{prefix} / field {field.number}"] = (
            field.name,
            descriptor_pb2.FieldDescriptorProto.Type.Name(field.type),
            field.type_name,
            descriptor_pb2.FieldDescriptorProto.Label.Name(field.label),
            oneof,
            field.proto3_optional,
            field.options.deprecated,
            field.options.packed if field.options.HasField("packed") else None,
        )
    return facts


def _enum_facts(enum, prefix: str) -> Facts:
    name = f"{prefix}enum {enum.name}"
    facts: Facts = {name: (enum.options.allow_alias,)}
    for value in enum.value:
        facts[f"{name} / value {value.number} {value.name}"] = ()
    return facts


def _message_facts(message, prefix: str = "") -> Facts:
    name = f"{prefix}message {message.name}"
    facts: Facts = {name: (message.options.map_entry,)}
    for oneof in message.oneof_decl:
        facts[f"{name} / oneof {oneof.name}"] = ()
    for reserved in message.reserved_range:
        facts[f"{name} / reserved {reserved.start}..{reserved.end - 1}"] = ()
    for reserved_name in message.reserved_name:
        facts[f"{name} / reserved {reserved_name}"] = ()
    facts |= _field_facts(message, name)
    for nested in message.nested_type:
        facts |= _message_facts(nested, f"{name} / ")
    for enum in message.enum_type:
        facts |= _enum_facts(enum, f"{name} / ")
    return facts


def _file_facts(file: descriptor_pb2.FileDescriptorProto) -> Facts:
    facts: Facts = {"file": (file.package, file.syntax)}
    for imported in file.dependency:
        facts[f"import {imported}"] = ()
    for message in file.message_type:
        facts |= _message_facts(message)
    for enum in file.enum_type:
        facts |= _enum_facts(enum, "")
    for service in file.service:
        facts[f"service {service.name}"] = ()
        for method in service.method:
            facts[f"service {service.name} / method {method.name}"] = (
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
            )
    return facts


@pytest.fixture(scope="module")
def published() -> Facts:
    file = descriptor_pb2.FileDescriptorProto.FromString(
        published_module.DESCRIPTOR.serialized_pb
    )
    return _file_facts(file)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    output = tmp_path_factory.mktemp("descriptor") / "set.bin"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO.parent}",
            f"--descriptor_set_out={output}",
            "--include_imports",
            PROTO.name,
        ],
        check=True,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    (own,) = [file for file in files if file.name == PROTO.name]
    return _file_facts(own)


def test_both_descriptors_hold_the_whole_service(published: Facts, ours: Facts) -> None:
    for facts in (published, ours):
        methods = [name for name in facts if " / method " in name]
        messages = [name for name in facts if name.startswith("message ") and " / " not in name]
        assert len(methods) >= 29
        assert len(messages) >= 100


def test_what_both_declare_is_the_same(published: Facts, ours: Facts) -> None:
    shared = published.keys() & ours.keys()
    different = {
        name: {"published": published[name], "ours": ours[name]}
        for name in sorted(shared)
        if published[name] != ours[name]
    }
    assert different == {}


def test_only_the_listed_facts_are_ours_alone(published: Facts, ours: Facts) -> None:
    assert ours.keys() - published.keys() == ONLY_OURS.keys()


def test_only_the_listed_facts_are_left_out(published: Facts, ours: Facts) -> None:
    assert published.keys() - ours.keys() == ONLY_PUBLISHED.keys()
