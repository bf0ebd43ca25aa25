"""Downloads from a server on this machine: whole, damaged, broken off, absent."""

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from models import fetch

CONTENT = np.random.default_rng(0).bytes(3 << 20)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Knows ranges, and breaks off after a million bytes of the file called broken."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.lstrip("/")
        if name not in ("whole", "broken", "damaged"):
            self.send_error(404)
            return
        content = CONTENT[:-1] + b"?" if name == "damaged" else CONTENT
        wanted = self.headers.get("Range")
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.server.begins.append(begin)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        rest = content[begin:]
        self.wfile.write(rest[:1_000_000] if name == "broken" and not wanted else rest)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.begins = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


def source(server, name, digest=None):
    digest = digest or hashlib.sha256(CONTENT).hexdigest()[:8]
    return fetch.Source(f"{server.address}/{name}", "sha256", digest)


def test_a_whole_file(server, tmp_path):
    path = fetch.fetch(source(server, "whole"), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert fetch.fetch(source(server, "whole"), tmp_path / "new") == path
    assert server.begins == [0]  # not fetched a second time


def test_a_damaged_file_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match=r"expected .* beginning"):
        fetch.fetch(source(server, "damaged"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "whole").write_bytes(b"something else")
    with pytest.raises(ValueError, match="delete it"):
        fetch.fetch(source(server, "whole"), tmp_path)


def test_a_download_goes_on_where_it_broke_off(server, tmp_path):
    with pytest.raises(OSError, match="what has arrived is kept"):
        fetch.fetch(source(server, "broken"), tmp_path)
    part = tmp_path / "broken.part"
    assert part.stat().st_size == 1_000_000
    path = fetch.fetch(source(server, "broken"), tmp_path)
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.begins == [0, 1_000_000]


def test_a_complete_part_is_only_verified(server, tmp_path):
    (tmp_path / "whole.part").write_bytes(CONTENT)
    assert fetch.fetch(source(server, "whole"), tmp_path).read_bytes() == CONTENT


def test_no_file_and_no_server(server, tmp_path):
    with pytest.raises(OSError, match="check the network"):
        fetch.fetch(source(server, "absent"), tmp_path)
    with pytest.raises(OSError, match="check the network"):
        fetch.fetch(fetch.Source("http://127.0.0.1:9/file", "sha256", "00"), tmp_path)


def test_the_command(server, tmp_path, monkeypatch, capsys):
    wrong = functools.partial(source, server, "whole")
    monkeypatch.setitem(fetch.SOURCES, "googlenet-bvlc", wrong())
    fetch.main(["googlenet-bvlc", "--to", str(tmp_path)])
    assert str(tmp_path / "whole") in capsys.readouterr().out
    monkeypatch.setitem(fetch.SOURCES, "googlenet-bvlc", wrong(digest="00"))
    with pytest.raises(SystemExit, match="damaged"):
        fetch.main(["googlenet-bvlc", "--to", str(tmp_path)])
