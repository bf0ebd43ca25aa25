"""The README's Python runs, block after block, as a reader would type it."""

import re
from pathlib import Path

import models

ROOT = Path(models.__file__).parent.parent


def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["predicted"].objective.shape == (4, 12)
