"""The type checker of `typed_run`: beartype, which takes an int where a float is annotated."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
