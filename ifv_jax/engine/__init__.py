"""The machinery behind the paper: compiled programs, optimizers, runs. No promises to users."""
