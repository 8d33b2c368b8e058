"""The README's first orchestration does what the README says, also through a kill -9 in the middle."""

import re
import subprocess
import sys
from pathlib import Path

from server import REPOSITORY, Server


def test_the_readmes_sample_finishes_after_a_kill_in_the_middle(tmp_path: Path):
    """No greeting that was recorded is made twice."""
    readme = (REPOSITORY / "README.md").read_text()
    code = re.search(r"Save as `hello\.py`:\n\n```python\n(.*?)```", readme, re.DOTALL).group(1)
    server = Server(tmp_path).start()
    assert "localhost:8080" in code
    script = tmp_path / "hello.py"
    script.write_text(code.replace("localhost:8080", server.address))
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
