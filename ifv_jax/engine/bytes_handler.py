"""An Orbax handler that keeps bytes in one file, on whatever host.

Every host keeps its own checkpoints here. Orbax itself writes NumPy arrays on the first host only,
and splits arrays that belong to all hosts. This module is imported late, because importing Orbax
takes a second.
"""

import os
from dataclasses import dataclass

import orbax.checkpoint as ocp

FILE = "checkpoint"


class BytesHandler(ocp.CheckpointHandler):
    """Writes and reads the file. Orbax moves its folder into place once it is complete."""

    def save(self, directory, args: "Bytes") -> None:
        """Writes bytes into a folder.

        Args:
          directory: the folder.
          args: the bytes.
        """
        with open(os.path.join(directory, FILE), "wb") as file:
            file.write(args.content)
            file.flush()
            os.fsync(file.fileno())

    def restore(self, directory, args: "Bytes | None" = None) -> bytes:
        """Reads the bytes in a folder.

        Args:
          directory: the folder.
          args: not used; Orbax passes it.

        Returns:
          The bytes.
        """
        with open(os.path.join(directory, FILE), "rb") as file:
            return file.read()


@ocp.args.register_with_handler(BytesHandler, for_save=True, for_restore=True)
@dataclass
class Bytes(ocp.args.CheckpointArgs):
    """Arguments of the handler.

    Attributes:
      content: the bytes to keep; empty for restoring.
    """

    content: bytes = b""
