"""The authors' originals are fetched whole, pinned, or not at all."""

from __future__ import annotations

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from r2a_utils import paper
from r2a_utils.paper import download
from r2a_utils.paper.download import Original

WITH, WITHOUT = "with_reasoning", "without_reasoning"


class QuietHandler(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *arguments):
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    """A real file server with two published files, one of them in the LFS tree."""
    root = tmp_path / "server"
    files = {
        "raw/pairs.csv": b"query_a,answer_a\nWhich?,This\n",
        "lfs/traces/a.jsonl": b'{"unique_id": "1"}\n' * 50_000,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    asked: list[str] = []
    handler = type("Handler", (QuietHandler,), {"asked": asked})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}/"
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    published = [
        Original("pairs.csv", "pairs.csv", sha256["raw/pairs.csv"], lfs=False),
        Original("traces/a.jsonl", "a.jsonl", sha256["lfs/traces/a.jsonl"], lfs=True),
    ]
    yield (
        root,
        asked,
        partial(paper.fetch, files=published, raw_url=url + "raw/", lfs_url=url + "lfs/"),
    )
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_fetch_brings_each_file_once(server, tmp_path):
    root, asked, fetch = server
    paths = fetch(tmp_path / "data")
    assert [p.read_bytes() for p in paths] == [
        (root / "raw/pairs.csv").read_bytes(),
        (root / "lfs/traces/a.jsonl").read_bytes(),
    ]
    assert asked == ["/raw/pairs.csv", "/lfs/traces/a.jsonl"]
    fetch(tmp_path / "data")
    assert len(asked) == 2
    paths[0].write_bytes(b"damaged")
    fetch(tmp_path / "data")
    assert asked[2:] == ["/raw/pairs.csv"]
    assert paths[0].read_bytes() == (root / "raw/pairs.csv").read_bytes()


def test_fetch_keeps_nothing_that_is_not_what_was_published(server, tmp_path):
    root, _, fetch = server
    (root / "raw/pairs.csv").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not what the authors published"):
        fetch(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_fetch_says_what_cannot_be_had(server, tmp_path):
    root, _, fetch = server
    (root / "raw/pairs.csv").unlink()
    with pytest.raises(ConnectionError, match=re.escape("raw/pairs.csv cannot be had")):
        fetch(tmp_path / "data")
    with pytest.raises(ConnectionError, match="cannot be had"):
        fetch(tmp_path / "data", raw_url="http://127.0.0.1:9/")
    assert list((tmp_path / "data").iterdir()) == []


def test_the_list_of_originals_is_pinned_and_in_safe_formats():
    files = download.originals()
    assert "/1e43ea686b39aa67ba3e87daca947fcafd170f3d/" in download.RAW_URL
    assert "/1e43ea686b39aa67ba3e87daca947fcafd170f3d/" in download.LFS_URL
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    assert {Path(file.path).suffix for file in files} == {".csv", ".jsonl"}
    assert len({file.name for file in files}) == len(files) == 14


def test_the_pinned_checksum_is_that_of_the_pairs_in_the_folder(paper_data):
    pinned = {file.name: file.sha256 for file in download.originals()}
    content = (paper_data / "coc_pairs.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == pinned["coc_pairs.csv"]


BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
