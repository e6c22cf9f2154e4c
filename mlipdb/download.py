"""Fetch a published file into the cache: checked by hash, resumed where a connection broke."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import requests

from mlipdb.errors import DownloadError

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all
BLOCK = 1 << 16
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two blocks
RETRIES = 5  # in a row without a single new byte


def cache_directory() -> Path:
    """$MLIPDB_CACHE, else the system's place for caches."""
    return Path(os.environ.get("MLIPDB_CACHE") or pooch.os_cache("mlipdb"))


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    name: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The file of a URL, from the cache or the network; name is what it is called in the cache.

    A broken download leaves NAME.part, and the next call goes on from there. Raises DownloadError when the file
    cannot be had, is not in the cache under offline, or has another hash (a fetched one is removed then).
    """
    folder = cache or cache_directory()
    path = folder / (name or url.rstrip("/").rpartition("/")[2])
    expected = f"sha256:{sha256}" if sha256 else f"md5:{md5}" if md5 else None
    if path.exists():
        return _checked(path, expected)
    if offline:
        raise DownloadError(
            f"{path.name} is not in the cache and --offline forbids fetching it: download {url} by hand"
            f"{f' ({expected})' if expected else ''} and put it at {path}"
        )
    part = path.with_name(f"{path.name}.part")
    if expected is None:
        part.unlink(missing_ok=True)  # without a hash nobody could tell that two halves belong together
    downloader = ResumingDownload(part, progress=progress)
    pooch.get_logger().setLevel("WARNING")  # it announces each download on stderr
    try:
        return Path(pooch.retrieve(url, expected, fname=path.name, path=folder, downloader=downloader))
    except ValueError as error:  # pooch's word for a wrong hash; it has removed the file
        raise DownloadError(
            f"{url}: {_hashes(str(error), expected)}; the file was removed. Repeat the command; if it happens again, "
            "the published file has changed"
        ) from error
    except OSError as error:  # requests' errors are OSErrors, too
        raise DownloadError(
            f"{url} cannot be fetched ({error}); {_size(part)} bytes are kept. Repeat the command to go on from there, "
            f"or download it by hand and put it at {path}"
        ) from error


class ResumingDownload:
    """A downloader for pooch that collects bytes in a .part file and asks for the rest with a Range request."""

    def __init__(self, part: Path, *, progress: Progress | None = None) -> None:
        self._part = part
        self._progress = progress

    def __call__(self, url: str, output_file: str | Path, pooch: Any, check_only: bool = False) -> None:
        """Fetch url into output_file; raises requests' error after RETRIES attempts without progress."""
        fruitless = 0
        while True:
            before = _size(self._part)
            try:
                self._fetch_rest(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                fruitless = 0 if _size(self._part) > before else fruitless + 1
                if fruitless == RETRIES:
                    raise
        # Both lie in the cache directory, so this is a rename.
        shutil.move(self._part, output_file)

    def _fetch_rest(self, url: str) -> None:
        have = _size(self._part)
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                total = _total(answer.headers.get("Content-Range"))
                if total != have:
                    self._part.unlink()
                    raise requests.ConnectionError(f"the server has {total} bytes, the partial file {have}")
                return
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            if not resumed and answer.status_code != requests.codes.ok:
                raise requests.HTTPError(f"the server answered {answer.status_code} {answer.reason}")
            self._store(answer, have if resumed else 0)

    def _store(self, answer: requests.Response, have: int) -> None:
        """Append the answer behind the first `have` bytes of the partial file."""
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with self._part.open("ab" if have else "wb") as file:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                have += len(block)
                if self._progress is not None:
                    self._progress(have, total)
        if total is not None and have != total:
            raise requests.ConnectionError(f"the connection ended at byte {have} of {total}")


def _checked(path: Path, expected: str | None) -> Path:
    if expected is not None:
        kind, _, digest = expected.partition(":")
        found = pooch.file_hash(str(path), alg=kind)
        if found != digest:
            raise DownloadError(
                f"{path} has {kind} {found}, expected {digest}: it is damaged or another file; "
                "remove it to fetch it again"
            )
    return path


def _hashes(message: str, expected: str | None) -> str:
    """Both hashes, from pooch's sentence."""
    found = re.findall(r"\b[0-9a-f]{32,64}\b", message)
    wanted = (expected or "").partition(":")[2]
    got = next((digest for digest in found if digest != wanted), "unknown")
    return f"the file that arrived has hash {got}, expected {expected}"


def _total(content_range: str | None) -> int | None:
    """Bytes in all, from ``bytes */123``."""
    tail = (content_range or "").rpartition("/")[2]
    return int(tail) if tail.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
