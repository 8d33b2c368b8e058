"""A hub of a scheduler with agents at work: workers in processes of their own, clients in this one."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from agent_framework_durabletask import DurableAgentSession, DurableAIAgent, DurableAIAgentClient, DurableWorkflowClient
from durabletask.entities import EntityInstanceId

from model import Model
from sdk import DEADLINE, Sdk
from server import Server

AGENTS = Path(__file__).with_name("agents.py")
PYTHON_SUITE = AGENTS.parents[1] / "python"
POLL_SECONDS = 0.05


class Worker:
    """The process of `agents.py`. The model knows it by its name."""

    def __init__(self, sdk: Sdk, model: Model, name: str, folder: Path):
        self.name = name
        self._log = folder / f"worker-{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, AGENTS, sdk.package, sdk.address, sdk.hub, model.address(name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A proxy of the machine's has nothing to do with what is on the loopback address.
                env={**os.environ, "PYTHONPATH": str(PYTHON_SUITE), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def kill9(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Newsroom:
    """The hub that `sdk` names on `server`, the model, and the workers that were started there.

    `folder` receives the workers' logs.
    """

    server: Server
    model: Model
    sdk: Sdk
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def start_worker(self) -> Worker:
        self.workers.append(Worker(self.sdk, self.model, f"{self.sdk.hub}-{len(self.workers)}", self.folder))
        return self.workers[-1]

    def agent(self, name: str) -> DurableAIAgent:
        """The agent as a client of its own sees it; that client waits for an answer while the server is away, too."""
        client = DurableAIAgentClient(self.sdk.new_client(), int(2 * DEADLINE / POLL_SECONDS), POLL_SECONDS)
        return client.get_agent(name)

    def workflows(self) -> DurableWorkflowClient:
        return DurableWorkflowClient(self.sdk.client)

    def transcript(self, session: DurableAgentSession) -> list[tuple[str, str]]:
        """Who said what, as the session's entity keeps it; what is no text is told by its kind."""
        known = session.durable_session_id
        state = self.sdk.entity_state(EntityInstanceId(known.entity_name, known.key))
        return [
            (message["role"], "".join(part.get("text", f"<{part['$type']}>") for part in message["contents"]))
            for entry in state["data"]["conversationHistory"]
            for message in entry["messages"]
        ]

    def kill_and_restart(self) -> None:
        """Ends the scheduler as a crash would, and starts it on the same data."""
        self.server.kill9()
        self.server.restart()

    def close(self) -> None:
        self.sdk.close()
        for worker in self.workers:
            worker.kill9()
