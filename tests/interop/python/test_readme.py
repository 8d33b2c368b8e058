"""The README's samples do what the README says, the first also through a kill -9 in the middle."""

import re
import subprocess
import sys
from pathlib import Path

from server import REPOSITORY, Server


def sample(name: str, folder: Path, server: Server) -> Path:
    """The sample that the README says to save under this name, for a server at another address."""
    readme = (REPOSITORY / "README.md").read_text()
    code = re.search(rf"Save as `{re.escape(name)}`.*?```python\n(.*?)```", readme, re.DOTALL).group(1)
    assert "localhost:8080" in code
    script = folder / name
    script.write_text(code.replace("localhost:8080", server.address))
    return script


def test_the_readmes_sample_finishes_after_a_kill_in_the_middle(tmp_path: Path):
    """No greeting that was recorded is made twice."""
    server = Server(tmp_path).start()
    script = sample("hello.py", tmp_path, server)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        printed = []
        for line in process.stdout:
            printed.append(line.strip())
            if printed.count("greeting Lisbon") == 1 and line.startswith("greeting Lisbon"):
                # Lisbon's outcome may be on its way: only Tokyo's is certainly recorded.
                server.kill9()
                server.restart()
        assert process.wait(60) == 0
    finally:
        process.kill()
        server.stop()
    assert printed[-1] == '["Hello Tokyo!", "Hello Lisbon!", "Hello Quito!"]'
    assert printed.count("greeting Tokyo") == 1
    assert printed.count("greeting Quito") == 1


def test_the_readmes_bank_transfers_under_locks(tmp_path: Path):
    server = Server(tmp_path).start()
    try:
        script = sample("bank.py", tmp_path, server)
        ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    finally:
        server.stop()
    assert ran.stdout.splitlines()[-1] == "[70, 30]"
