"""The code in the skill for Python runs as it stands and prints what the skill says.

Blocks marked `file=NAME` are the parts of one file, in order; a block marked `output=NAME` is what that file prints. All files are
started at once, each against a server of its own, for all of them name the hub `default`.
"""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server import REPOSITORY, Server

SKILLS = REPOSITORY / ".github" / "skills"
SKILL = (SKILLS / "durable-task-python" / "SKILL.md").read_text()
BLOCKS = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", SKILL, re.MULTILINE)
SECONDS_MAX = 60


def assembled(mark: str) -> dict[str, str]:
    """The text of all blocks with this mark, by file name."""
    parts: defaultdict[str, str] = defaultdict(str)
    for kind, text in BLOCKS:
        if found := re.search(rf" {mark}=(\S+)$", kind):
            parts[found.group(1)] += text
    return dict(parts)


FILES = assembled("file")
OUTPUTS = assembled("output")
PROGRAMS = [name for name in FILES if name in OUTPUTS]
SUITES = [name for name in FILES if name.startswith("test_")]


@dataclass
class Run:
    process: subprocess.Popen[str]
    server: Server


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    running: dict[str, Run] = {}
    try:
        for name in [*PROGRAMS, *SUITES]:
            folder = tmp_path_factory.mktemp("skill")
            for file, text in FILES.items():
                (folder / file).write_text(text)
            server = Server(folder).start()
            how = ["-m", "pytest", "-q", name] if name in SUITES else [name]
            process = subprocess.Popen(
                [sys.executable, *how],
                cwd=folder,
                env={**os.environ, "MAINSPRING_ADDRESS": server.address, "MAINSPRING_BIN": server.command()[0]},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running[name] = Run(process, server)
        yield running
    finally:
        for run in running.values():
            run.process.kill()
            run.process.wait()
            run.server.stop()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_skill_prints_what_the_skill_says(name: str, runs: dict[str, Run]):
    output, log = runs[name].process.communicate(timeout=SECONDS_MAX)
    assert output == OUTPUTS[name], log
    assert runs[name].process.returncode == 0, log


@pytest.mark.parametrize("name", SUITES)
def test_a_test_of_the_skill_passes(name: str, runs: dict[str, Run]):
    output, log = runs[name].process.communicate(timeout=SECONDS_MAX)
    assert runs[name].process.returncode == 0, output + log
    assert re.search(r"^[1-9]\d* passed", output, re.MULTILINE), output


def test_every_block_of_the_skill_is_run_or_marked_as_wrong():
    for kind, text in BLOCKS:
        assert re.fullmatch(r"sh|python wrong|python file=\w+\.py|text output=\w+\.py", kind), f"{kind}:\n{text}"
        if kind == "python wrong":
            ast.parse(text)
    assert set(OUTPUTS) <= set(FILES)
    for name in set(FILES) - {*PROGRAMS, *SUITES}:
        assert any(f"from {Path(name).stem} import" in FILES[user] for user in PROGRAMS), f"nothing uses {name}"
    assert PROGRAMS and SUITES


def test_the_skill_installs_the_versions_that_the_tests_run():
    pinned = set((Path(__file__).parent / "requirements.txt").read_text().splitlines())
    installed = re.search(r"^pip install (.+)$", SKILL, re.MULTILINE).group(1).split()
    assert installed and set(installed) <= pinned


@pytest.mark.parametrize("skill", sorted(SKILLS.glob("*/SKILL.md")), ids=lambda path: path.parent.name)
def test_a_skills_head_names_it_and_says_when_to_use_it(skill: Path):
    name, description = re.match(r"---\nname: (\S+)\ndescription: (.+)\n---\n", skill.read_text()).groups()
    assert name == skill.parent.name
    assert "Use when" in description
