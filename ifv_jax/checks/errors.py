"""The only exception that the library raises for bad input."""


class InputError(ValueError):
    """Bad input, found before expensive work starts.

    Args:
      expected: what was expected, to follow the word "Expected".
      got: what came instead, to follow the word "got".
      do: what to do about it, in a sentence.
    """

    def __init__(self, expected: str, got: str, do: str):
        super().__init__(f"Expected {expected}; got {got}. {do}")
