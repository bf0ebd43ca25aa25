"""Scripts that measure: `python -m benchmarks.NAME`. Each writes a `summary.json` and pictures."""
