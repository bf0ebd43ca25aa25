"""How Orbax keeps bytes: as one file, whatever host writes them.

Of NumPy arrays Orbax writes those of the first host alone, and of arrays that belong to all hosts
each its part. Here every host keeps checkpoints of its own. Imported late: Orbax costs a second.
"""

import os
from dataclasses import dataclass

import orbax.checkpoint as ocp

FILE = "checkpoint"


class BytesHandler(ocp.CheckpointHandler):
    """Writes and reads the file; Orbax moves its folder into place once it is whole."""

    def save(self, directory, args: "Bytes") -> None:
        """Writes `args.content` into the folder."""
        with open(os.path.join(directory, FILE), "wb") as file:
            file.write(args.content)
            file.flush()
            os.fsync(file.fileno())

    def restore(self, directory, args: "Bytes | None" = None) -> bytes:
        """What was written into the folder."""
        with open(os.path.join(directory, FILE), "rb") as file:
            return file.read()


@ocp.args.register_with_handler(BytesHandler, for_save=True, for_restore=True)
@dataclass
class Bytes(ocp.args.CheckpointArgs):
    """What is to be kept; nothing to restore it."""

    content: bytes = b""
