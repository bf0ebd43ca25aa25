"""The shapes in the annotations are those that the functions take and return."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_annotations_hold_in_a_run_of_the_library(tmp_path):
    command = [sys.executable, "-m", "tests.typed_run", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "TypeCheckError"
