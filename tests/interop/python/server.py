"""Runs the `mainspring` binary as a child process, for tests that treat it as a black box.

The binary is the one named by MAINSPRING_BIN, else the debug build of this repository. A server keeps
its data folder and its port over `restart`, so that clients and workers find it again.
"""

import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 30
STOP_SECONDS = 10


def binary() -> str:
    return os.environ.get("MAINSPRING_BIN") or str(REPOSITORY / "target" / "debug" / "mainspring")


class Server:
    """One server on one data folder: `start`, `kill9`, `restart`, `stop`.

    `folder` receives the data and the log. `flags` are given to `mainspring serve` as they are,
    `environment` is added to this process's own.
    """

    def __init__(self, folder: Path, *flags: str, environment: dict[str, str] | None = None):
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_path = folder / "server.log"
        self.address = "127.0.0.1:0"
        self.health_address = "127.0.0.1:0"
        self.connection_string = ""
        self._flags = flags
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "Server":
        """Starts the process and returns once it has printed its addresses and connection string."""
        assert self._process is None, "the server is already running"
        lines: queue.Queue[str | None] = queue.Queue()
        with self.log_path.open("a") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **self._environment},
            )
        threading.Thread(target=_forward, args=(self._process.stdout, lines), daemon=True).start()
        found = self._read_announcement(lines)
        self.address = found["grpc listening on "]
        self.health_address = found["health listening on "]
        self.connection_string = found["connection string: "]
        return self

    def command(self) -> list[str]:
        return [
            binary(),
            "serve",
            "--data-dir",
            str(self.data_dir),
            "--grpc-addr",
            self.address,
            "--health-addr",
            self.health_address,
            *self._flags,
        ]

    def kill9(self) -> None:
        """Ends the process at once, as a crash would."""
        assert self._process is not None, "the server is not running"
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> "Server":
        """Starts again on the same data folder and ports."""
        return self.start()

    def stop(self) -> int:
        """Asks the process to drain, and returns its exit code; a process that hangs is killed."""
        assert self._process is not None, "the server is not running"
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop in {STOP_SECONDS} s\n{self.log_tail()}") from None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

    def _read_announcement(self, lines: "queue.Queue[str | None]") -> dict[str, str]:
        wanted = ("grpc listening on ", "health listening on ", "connection string: ")
        found: dict[str, str] = {}
        deadline = time.monotonic() + START_SECONDS
        while len(found) < len(wanted):
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.kill9()
                raise AssertionError(f"no addresses in {START_SECONDS} s\n{self.log_tail()}") from None
            if line is None:
                self.kill9()
                raise AssertionError(f"the server ended at its start\n{self.log_tail()}")
            for prefix in wanted:
                if line.startswith(prefix):
                    found[prefix] = line.removeprefix(prefix).strip()
        return found


def _forward(stream, lines: "queue.Queue[str | None]") -> None:
    """Keeps the pipe empty for as long as the process lives."""
    for line in stream:
        lines.put(line)
    lines.put(None)
