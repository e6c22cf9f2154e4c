"""Downloads from a server on localhost that cuts connections and knows Range, or does not."""

import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlipdb.download import BLOCK, RETRIES, cache_directory, fetch
from mlipdb.errors import DownloadError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
CONTENT = random.Random(7).randbytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status is not None:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start:end])  # fewer bytes than announced: the connection breaks

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked, found.cuts, found.ranges, found.status = [], [], True, None
        found.url = f"http://127.0.0.1:{found.server_port}/files/41619375"
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(server, tmp_path):
    seen = []
    path = fetch(server.url, md5=MD5, name="data.json", cache=tmp_path, progress=lambda *at: seen.append(at))
    assert path == tmp_path / "data.json"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(server.url, md5=MD5, name="data.json", cache=tmp_path) == path
    assert server.asked == [None]
    assert [item.name for item in tmp_path.iterdir()] == ["data.json"]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    server.cuts = [20 * BLOCK, 0, 10 * BLOCK]
    path = fetch(server.url, sha256=SHA256, name="data", cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, *(f"bytes={blocks * BLOCK}-" for blocks in (20, 20, 30))]


def test_a_second_call_goes_on_from_the_partial_file_of_the_first(server, tmp_path):
    server.cuts = [16 * BLOCK] + [0] * RETRIES
    with pytest.raises(DownloadError, match=rf"{16 * BLOCK} bytes are kept\. Repeat the command to go on"):
        fetch(server.url, md5=MD5, name="data", cache=tmp_path)
    assert (tmp_path / "data.part").stat().st_size == 16 * BLOCK
    assert not (tmp_path / "data").exists()
    assert fetch(server.url, md5=MD5, name="data", cache=tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={16 * BLOCK}-"


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.ranges, server.cuts = False, [500_000]
    assert fetch(server.url, md5=MD5, name="data", cache=tmp_path).read_bytes() == CONTENT


def test_a_partial_file_that_is_whole_needs_no_more_bytes(server, tmp_path):
    (tmp_path / "data.part").write_bytes(CONTENT)
    assert fetch(server.url, md5=MD5, name="data", cache=tmp_path).read_bytes() == CONTENT


def test_a_wrong_hash_names_both_and_leaves_no_file(server, tmp_path):
    wrong = "0" * 32
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, md5=wrong, name="data", cache=tmp_path)
    assert MD5 in str(caught.value)
    assert wrong in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_with_another_hash_is_not_used_and_not_removed(server, tmp_path):
    (tmp_path / "data").write_bytes(b"put here by hand")
    with pytest.raises(DownloadError, match=f"expected {MD5}.*remove it"):
        fetch(server.url, md5=MD5, name="data", cache=tmp_path)
    assert (tmp_path / "data").exists()
    assert server.asked == []


def test_a_refusal_of_the_server_is_an_error_that_says_where_to_put_the_file(server, tmp_path):
    server.status = 403
    with pytest.raises(DownloadError, match=f"403.*put it at {tmp_path}/data"):
        fetch(server.url, md5=MD5, name="data", cache=tmp_path)
    server.status = 202  # what a firewall answers with a puzzle for browsers
    with pytest.raises(DownloadError, match="202"):
        fetch(server.url, md5=MD5, name="data", cache=tmp_path)


def test_offline_says_where_to_put_the_file_and_uses_it_once_it_is_there(server, tmp_path):
    with pytest.raises(DownloadError, match=f"md5:{MD5}.*put it at {tmp_path}/data"):
        fetch(server.url, md5=MD5, name="data", cache=tmp_path, offline=True)
    (tmp_path / "data").write_bytes(CONTENT)
    assert fetch(server.url, md5=MD5, name="data", cache=tmp_path, offline=True) == tmp_path / "data"
    assert server.asked == []


def test_without_a_hash_a_partial_file_is_not_trusted(server, tmp_path):
    (tmp_path / "41619375.part").write_bytes(b"something else")
    assert fetch(server.url, cache=tmp_path).read_bytes() == CONTENT
    assert server.asked == [None]


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MLIPDB_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("MLIPDB_CACHE")
    assert cache_directory().name == "mlipdb"
