"""The README's Python runs, block after block, as a reader would type it; and it stays short."""

import re
from pathlib import Path

import models

ROOT = Path(models.__file__).parent.parent
MOST_WORDS = 1500


def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["predicted"].objective.shape == (4, 12)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS
