"""The machinery behind the paper: compiled programs, optimizers, runs. It may change any time."""
