"""The tests of this folder use the server and the SDK of the Python suite beside it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
