"""The samples and the code of the skills for Java and Go do what they say, by the commands that they name."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import REPOSITORY, Server

JAVA = REPOSITORY / "samples" / "java"
GO = REPOSITORY / "samples" / "go"

SAMPLES = [
    ("Sequence", "sequence", [], ['["Hello Tokyo!","Hello Lisbon!","Hello Quito!"]']),
    ("FanOutFanIn", "fan_out_fan_in", [], ["10 words on 3 pages"]),
    ("HumanInteraction", "human_interaction", [], ["please approve 120", "paid"]),
    ("HumanInteraction", "human_interaction", ["reject"], ["please approve 120", "rejected"]),
    ("HumanInteraction", "human_interaction", ["ignore"], ["please approve 120", "nobody answered"]),
]
PATTERNS = ["FanOut 285", 'Retries "done"', "Approval {approval}", "Parent 285", "Eternal 3"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where the examples find a scheduler of the test's own."""
    server = Server(tmp_path).start()
    port = server.address.rsplit(":", 1)[1]
    yield {**os.environ, "MAINSPRING_PORT": port, "MAINSPRING_ADDRESS": server.address}
    server.stop()


def printed(command: list[str], folder: Path, environment: dict[str, str]) -> list[str]:
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, f"{command}: {ran.stdout}\n{ran.stderr}"
    # Maven colours even empty lines.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in ran.stdout.splitlines()]
    return [line for line in lines if line]


def ids(sample: tuple) -> str:
    return "-".join([sample[1], *sample[2]])


@pytest.mark.parametrize("sample", SAMPLES, ids=ids)
def test_a_java_sample_prints_what_it_shows(sample: tuple, environment: dict[str, str]):
    name, _, arguments, expected = sample
    command = f"mvn -q compile exec:java -Dsample={name}"
    assert command in (JAVA / "src/main/java/samples" / f"{name}.java").read_text()
    extra = [f"-Dexec.args={argument}" for argument in arguments]
    assert printed([*command.split(), *extra], JAVA, environment) == expected


@pytest.mark.parametrize("sample", SAMPLES, ids=ids)
def test_a_go_sample_prints_what_it_shows(sample: tuple, environment: dict[str, str]):
    _, name, arguments, expected = sample
    command = f"go run ./{name}"
    assert command in (GO / name / "main.go").read_text()
    lines = printed([*command.split(), *arguments], GO, environment)
    assert [line.strip('"') for line in lines] == expected


def blocks(skill: str, language: str) -> dict[str, str]:
    """The code of a skill by file name. Every block of the language is one."""
    text = (REPOSITORY / ".github/skills" / skill / "SKILL.md").read_text()
    found = re.findall(rf"```{language}(.*?)\n(.*?)```", text, re.DOTALL)
    return {mark.strip().removeprefix("file="): code for mark, code in found}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Quick", ["Hello Ada!"]),
        ("Hubs", ["false"]),
        ("Patterns", [line.format(approval='"paid"') for line in PATTERNS]),
    ],
)
def test_the_code_of_the_java_skill_runs(name: str, expected: list[str], tmp_path: Path, environment: dict[str, str]):
    code = blocks("durable-task-java", "java")
    assert set(code) == {"Quick.java", "Hubs.java", "Patterns.java"}
    (tmp_path / f"{name}.java").write_text(code[f"{name}.java"])
    class_path = os.environ["INTEROP_JAVA_CLASSPATH"]
    subprocess.run(["javac", "-cp", class_path, f"{name}.java"], cwd=tmp_path, check=True)
    assert printed(["java", "-cp", f"{class_path}:.", name], tmp_path, environment) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quick", ['"Hello Ada!"']),
        ("hubs", ["true"]),
        ("patterns", [line.format(approval="true") for line in PATTERNS]),
    ],
)
def test_the_code_of_the_go_skill_runs(name: str, expected: list[str], tmp_path: Path, environment: dict[str, str]):
    code = blocks("durable-task-go", "go")
    assert set(code) == {"quick/main.go", "hubs/main.go", "patterns/main.go"}
    for file in ("go.mod", "go.sum"):
        shutil.copy(GO / file, tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "main.go").write_text(code[f"{name}/main.go"])
    assert printed(["go", "run", f"./{name}"], tmp_path, environment) == expected
