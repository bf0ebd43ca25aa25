"""Downloads a public checkpoint and verifies it.

    python -m models.fetch googlenet-torchvision --to weights
    python -m models.fetch googlenet-bvlc --to weights

The file gets its name only when its hash is right. An interrupted download continues where it
stopped, if the server supports that.
"""

import argparse
import hashlib
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
TIMEOUT = 30
"""Seconds without a byte after which a download fails."""


@dataclass(frozen=True)
class Source:
    """The address of a file and its hash.

    Attributes:
      url: the address.
      algorithm: name of the hash function.
      digest: the hash in hexadecimal digits, or its beginning.
    """

    url: str
    algorithm: str
    digest: str

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


SOURCES = {
    # The names of PyTorch's files contain the beginning of their SHA-256.
    "googlenet-torchvision": Source(
        "https://download.pytorch.org/models/googlenet-1378be20.pth", "sha256", "1378be20"
    ),
    # From the readme of bvlc_googlenet in BVLC/caffe.
    "googlenet-bvlc": Source(
        "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        "sha1",
        "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
    ),
}


def fetch(source: Source, folder: Path) -> Path:
    """Downloads a file unless it is there already.

    Args:
      source: the file.
      folder: the folder to put it into.

    Returns:
      The path of the file.

    Raises:
      OSError: the download failed.
      ValueError: the file has another hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.filename
    if path.exists():
        _verify(path, source)
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        _download(source.url, part)
    except (urllib.error.URLError, OSError) as error:
        raise OSError(
            f"expected {source.url} to answer, got {error}; check the network and try again "
            f"(what has arrived is kept in {part}), or put the file at {path} yourself"
        ) from error
    try:
        _verify(part, source)
    except ValueError:
        part.unlink()  # to continue a wrong file would never make it right
        raise
    part.rename(path)
    return path


def _download(url: str, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: it was complete
            return
        raise
    with response:
        if response.status != 206:  # the server sends everything
            done = 0
        total = done + int(response.headers.get("Content-Length", 0))
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                print(f"\r{done / 2**20:.0f} of {total / 2**20:.0f} MiB", end="", file=sys.stderr)
        print(file=sys.stderr)
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _verify(path: Path, source: Source) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, source.algorithm).hexdigest()
    if not digest.startswith(source.digest):
        raise ValueError(
            f"expected {path} with a {source.algorithm} beginning {source.digest}, got {digest}; "
            "the file is damaged: delete it and fetch it again"
        )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: the arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m models.fetch", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("name", choices=list(SOURCES))
    parser.add_argument("--to", type=Path, default=Path("weights"), help="folder")
    options = parser.parse_args(arguments)
    try:
        print(fetch(SOURCES[options.name], options.to))
    except (OSError, ValueError) as error:
        sys.exit(f"{options.name}: {error}")


if __name__ == "__main__":
    main()
