"""Each Python sample, run as its head says, prints what it is there to show.

All are started at once, each in a task hub of its own, so that their waits overlap.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import REPOSITORY, Server

SAMPLES = REPOSITORY / "samples" / "python"
SECONDS_MAX = 60

RUNS = {
    "sequence": ["a cup of coffee of ground arabica"],
    "fan_out_fan_in": ["{'each': [4, 2, 3], 'total': 9}"],
    "human_interaction": ["please approve 120 euros", "paid"],
    "human_interaction --reject": ["please approve 120 euros", "rejected"],
    "human_interaction --ignore": ["please approve 120 euros", "nobody answered"],
}
"""Each sample with its options, and what it prints."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    server = Server(tmp_path_factory.mktemp("samples"), "--dynamic-task-hubs").start()
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for number, run in enumerate(RUNS):
            name, *options = run.split()
            running[run] = subprocess.Popen(
                [sys.executable, f"samples/python/{name}.py", *options],
                cwd=REPOSITORY,
                env={**os.environ, "MAINSPRING_ADDRESS": server.address, "MAINSPRING_TASKHUB": f"sample-{number}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        server.stop()


@pytest.mark.parametrize("run", RUNS)
def test_a_sample_prints_what_it_shows_and_ends_well(run: str, processes: dict[str, subprocess.Popen[str]]):
    output, log = processes[run].communicate(timeout=SECONDS_MAX)
    assert processes[run].returncode == 0, log
    assert output.splitlines() == RUNS[run], log


@pytest.mark.parametrize("name", sorted({run.split()[0] for run in RUNS}))
def test_a_samples_head_says_how_to_install_and_run_it(name: str):
    """The versions it names are those of the tests, and the command is one that the tests run."""
    head = ast.get_docstring(ast.parse((SAMPLES / f"{name}.py").read_text()))
    assert head is not None
    install, run = re.search(r"^    pip install (\S+)\n    python samples/python/(.+)$", head, re.MULTILINE).groups()
    assert install in (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    assert run.replace(".py", "") in RUNS
