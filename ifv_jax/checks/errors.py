"""The one exception the library raises for input that cannot be worked with."""


class InputError(ValueError):
    """Bad input, found before the expensive work starts.

    The message says what was expected, what came, and what to do.
    """

    def __init__(self, expected: str, got: str, do: str):
        super().__init__(f"Expected {expected}; got {got}. {do}")
