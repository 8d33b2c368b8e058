#!/usr/bin/env bash
# Proves the dependency edges that must not exist, from what cargo itself resolves.
#
# The order is proto -> core -> entities -> store -> host -> server -> cli: a package may use what stands left of it. Beside it
# stands proto -> sdk -> agents, which knows nothing of the scheduler's inside; `mainspring` joins the two. Each layer has outside crates that it
# never sees. A package's outside crates are all that it reaches without
# passing through another package of this workspace, so that `core` may see tonic through `proto` but not by itself.
# Development dependencies have to keep the order, but may use any outside crate, and the tests of `agents` may use `mainspring`.
#
# Usage: .ci/layers.sh [metadata.json]   (the output of `cargo metadata`; asked of cargo if not given)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

metadata="${1:-}"
if [ -z "$metadata" ]; then
  metadata="$(mktemp)"
  trap 'rm -f "$metadata"' EXIT
  # For this platform alone: the crates of others would have to be downloaded just to be looked at.
  host="$(rustc -vV | sed -n 's/^host: //p')"
  cargo metadata --format-version 1 --all-features --locked --filter-platform "$host" >"$metadata"
fi

python3 - "$metadata" <<'PY'
import copy
import json
import sys

# What stands where, from the wire up. Those above may use all layers, and no layer may use them.
ORDER = ["proto", "core", "entities", "store", "host", "server", "cli"]
BESIDE = {"sdk": ["proto"], "agents": ["sdk"]}
# What only the tests of a layer may use: an agent is tested against a whole scheduler.
TESTED_WITH = {"agents": ["face"]}
ABOVE_ALL = ["face", "samples", "bench", "tests"]

ACTORS = {"actix", "actix-rt"}
STORAGE = {"fjall", "foyer", "rmp-serde"}
RPC = {"tonic", "tonic-prost", "tonic-health", "tonic-reflection", "hyper", "hyper-util", "axum", "tower"}
WAITING = {"tokio", "tokio-stream", "tokio-util", "futures", "futures-util", "futures-executor", "async-trait"}
CHANCE_AND_CLOCKS = {"rand", "rand_core", "getrandom", "fastrand", "uuid", "chrono", "time"}

# What a machine never sees: it decides and does nothing else.
PURE = ACTORS | STORAGE | RPC | WAITING | CHANCE_AND_CLOCKS | {"tracing", "rustix", "tempfile"}

# The outside crates that a layer never sees.
NEVER = {
    "proto": ACTORS | STORAGE,
    "core": PURE,
    "entities": PURE,
    "store": ACTORS | RPC,
    "host": STORAGE | RPC,
    "server": ACTORS | STORAGE,
    "cli": ACTORS | STORAGE,
    "sdk": ACTORS | STORAGE | (CHANCE_AND_CLOCKS - {"getrandom"}) | {"rustix", "tempfile"},
    "agents": ACTORS | STORAGE | (CHANCE_AND_CLOCKS - {"getrandom"}) | {"rustix", "tempfile"},
    "face": ACTORS | STORAGE,
    "samples": ACTORS | STORAGE,
    "bench": ACTORS | STORAGE,
    "tests": set(),
}
PREFIX = "mainspring-"


def layer(name):
    """The layer of a workspace package, `mainspring-core` giving `core`; `None` for an outside crate."""
    if name == "mainspring":
        return "face"
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


class Graph:
    """What cargo resolved: for each package id its name and its dependencies with their kinds."""

    def __init__(self, metadata):
        self.names = {package["id"]: package["name"] for package in metadata["packages"]}
        self.members = [member for member in metadata["workspace_members"]]
        # Kind None is a normal dependency; the others are "dev" and "build".
        self.edges = {
            node["id"]: [(dep["pkg"], {kind["kind"] for kind in dep["dep_kinds"]}) for dep in node["deps"]]
            for node in metadata["resolve"]["nodes"]
        }

    def outside(self, member):
        """Names of the outside crates that a member reaches by itself, each with the path that leads there."""
        found = {}
        open_ends = [(member, [self.names[member]], True)]
        while open_ends:
            package, path, is_member = open_ends.pop()
            for target, kinds in self.edges[package]:
                # A crate that is needed to build another one does not become part of it.
                wanted = {None, "build"} if is_member else {None}
                name = self.names[target]
                if not (kinds & wanted) or target in self.members or name in found:
                    continue
                found[name] = path + [name]
                open_ends.append((target, found[name], False))
        return found


def violations(graph):
    """Sentences that say which forbidden edge exists; none if the layers hold."""
    found = []
    for member in graph.members:
        name = graph.names[member]
        own = layer(name)
        if own not in NEVER:
            found.append(f"{name} has no layer: give it one in .ci/layers.sh")
            continue
        for target, kinds in graph.edges[member]:
            other = layer(graph.names[target]) if target in graph.members else None
            if other is None or own in ABOVE_ALL:
                continue
            if kinds == {"dev"} and other in TESTED_WITH.get(own, []):
                continue
            below = BESIDE[own] if own in BESIDE else ORDER[: ORDER.index(own)]
            if other not in below:
                found.append(f"{name} depends on {graph.names[target]}, which is not below it")
        if own != "tests":
            for crate, path in sorted(graph.outside(member).items()):
                if crate in NEVER[own]:
                    found.append(f"{name} sees {crate}: {' -> '.join(path)}")
    return found


def planted(metadata):
    """Copies of the metadata with one forbidden edge each, and what the edge is: the check has to find them all."""
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    by_layer = {layer(names[member]): member for member in metadata["workspace_members"]}

    def with_edge(source, target):
        changed = copy.deepcopy(metadata["resolve"])
        node = next(node for node in changed["nodes"] if node["id"] == source)
        node["deps"].append({"pkg": target, "dep_kinds": [{"kind": None}]})
        return {**metadata, "resolve": changed}

    present = [name for name in ORDER if name in by_layer]
    for position, lower in enumerate(present):
        for upper in present[position + 1 :]:
            yield f"{lower} -> {upper}", with_edge(by_layer[lower], by_layer[upper])
    for own, below in BESIDE.items():
        for other in [*present, *BESIDE, "face"]:
            if other not in below and other != own:
                yield f"{own} -> {other}", with_edge(by_layer[own], by_layer[other])
        for other in present:
            yield f"{other} -> {own}", with_edge(by_layer[other], by_layer[own])
    crates = {name: package for package, name in names.items() if layer(name) is None}
    for own in [*ORDER, *BESIDE, *ABOVE_ALL]:
        for crate in sorted(NEVER[own] & crates.keys()):
            if own in by_layer:
                yield f"{own} -> {crate}", with_edge(by_layer[own], crates[crate])


with open(sys.argv[1], encoding="utf-8") as file:
    metadata = json.load(file)
found = violations(Graph(metadata))
for sentence in found:
    print(f"layers: {sentence}", file=sys.stderr)
if found:
    sys.exit(1)

proven = 0
for edge, changed in planted(metadata):
    proven += 1
    if not violations(Graph(changed)):
        sys.exit(f"layers: the check does not notice a planted edge {edge}")
print(f"layers: {len(metadata['workspace_members'])} packages in order; {proven} forbidden edges absent, each noticed when planted")
PY
