"""Servers and workers killed again and again under load: nothing accepted is lost, doubled or out of order.

`MAINSPRING_CRASH_SEED` repeats the plan of a run (what is started, when the kills come, counted from each
restart); how the threads and processes interleave stays the machine's business.
`MAINSPRING_CRASH_ROUNDS` sets the number of kills of the server.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crash_client import PatientClient
from crash_load import KINDS, Load
from sdk import DEADLINE
from server import Server, binary

ROUNDS = int(os.environ.get("MAINSPRING_CRASH_ROUNDS", "100"))
WORKER_ROUNDS = 10
DRIVERS = 16
HUB = "default"


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("MAINSPRING_CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MAINSPRING_CRASH_SEED={seed}", flush=True)
    return seed


class WorkerProcess:
    """The process of `crash_worker.py`, and how many lingering activities it has in hand."""

    def __init__(self, address: str, log: Path):
        self._log = log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("crash_worker.py")), address, HUB],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._wait(lambda: self._counts["started"] == 1, "start")

    def wait_until_holding(self) -> None:
        self._wait(self.in_hand, "hold anything")

    def in_hand(self) -> int:
        return self._counts["holding"] - self._counts["releasing"]

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill9(self) -> int:
        """How many activities it had in hand."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        return self.in_hand()

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, DEADLINE):
                raise AssertionError(f"the worker does not {what}\n{self._log.read_text()[-4000:]}")

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._changed:
                self._counts[line.strip()] += 1
                self._changed.notify()


@contextmanager
def load_on(server: Server, seed: int) -> Iterator[Load]:
    client = PatientClient(server.address, HUB)
    try:
        yield Load(client, seed, DRIVERS).start()
    except BaseException:
        print(server.log_tail(), flush=True)
        raise
    finally:
        client.close()


def finish(load: Load, server: Server) -> None:
    """Lets the load run out, checks everything it did, and has the store examined."""
    load.stop()
    print(f"ended: {dict(load.ended)}; events without an answer: {load.unanswered}", flush=True)
    load.assert_nothing_lost_or_changed()
    assert set(load.ended) == {kind.__name__ for kind in KINDS}, "a kind of load never came to an end"
    assert server.stop() == 0
    assert "panicked at" not in server.log_path.read_text(), "a part of the server died on the way"
    check = subprocess.run(
        [binary(), "store", "check", "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    print(check.stdout, flush=True)


@pytest.mark.timeout(900)
def test_a_server_killed_a_hundred_times_keeps_every_promise(
    new_server: Callable[..., Server], tmp_path: Path, seed: int
):
    """S-0.2, S-0.3, S-0.6, S-3.12 to S-3.14, S-6.1, S-8.1, S-9.2, S-9.7, S-13.21."""
    server = new_server()
    kills = random.Random(seed)
    worker = WorkerProcess(server.address, tmp_path / "worker.log")
    busy_rounds = 0
    promises = 0
    try:
        with load_on(server, seed) as load:
            for _ in range(ROUNDS):
                ended_before = load.ended.total()
                if kills.random() < 0.1:
                    # This one comes while the server still reads its store.
                    time.sleep(kills.uniform(0, 0.1))
                else:
                    promises += load.ledger.check(load.client)
                    time.sleep(kills.uniform(0, 0.7))
                load.assert_well()
                assert server.is_running(), server.log_tail()
                server.kill9()
                busy_rounds += load.ended.total() > ended_before
                server.restart()
            promises += load.ledger.check(load.client)
            print(f"{busy_rounds} of {ROUNDS} rounds ended some; {promises} promises checked", flush=True)
            finish(load, server)
        assert worker.is_running()
        assert busy_rounds >= ROUNDS / 2, "most kills met an idle server"
    finally:
        worker.kill9()


@pytest.mark.timeout(300)
def test_workers_killed_with_items_in_hand_leave_no_work_undone(
    new_server: Callable[..., Server], tmp_path: Path, seed: int
):
    """S-13.19, S-0.1, S-5.5."""
    server = new_server("--lease-grace", "200ms")
    kills = random.Random(seed)
    worker = WorkerProcess(server.address, tmp_path / "worker.log")
    rounds_with_items = 0
    try:
        with load_on(server, seed) as load:
            for _ in range(WORKER_ROUNDS):
                time.sleep(kills.uniform(0, 1.0))
                worker.wait_until_holding()
                rounds_with_items += worker.kill9() > 0
                worker = WorkerProcess(server.address, tmp_path / "worker.log")
                load.assert_well()
            print(f"{rounds_with_items} of {WORKER_ROUNDS} workers had activities in hand", flush=True)
            finish(load, server)
    finally:
        worker.kill9()
    assert rounds_with_items >= WORKER_ROUNDS / 2, "most workers were killed empty-handed"
