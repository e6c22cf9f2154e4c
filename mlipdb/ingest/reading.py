"""One pass over the files of a source: blocks go down the line and come back in file order."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlipdb.errors import IngestError
from mlipdb.ingest.blocks import blocks
from mlipdb.ingest.checks import Finding, SourceChecks
from mlipdb.ingest.files import InputFile, content_sha256
from mlipdb.ingest.line import Line
from mlipdb.ingest.process import WorkerDied
from mlipdb.ingest.reader import Reader
from mlipdb.ingest.report import IngestReport
from mlipdb.ingest.sources import FileReading
from mlipdb.ingest.stream import FileDigest
from mlipdb.ingest.taking import Taker
from mlipdb.ingest.work import Depth, Done

Warn = Callable[[Sequence[Finding]], None]


class Reading:
    """The files of a source, read through a line of workers."""

    def __init__(self, line: Line, reader: Reader, files: Sequence[InputFile], *, options: Mapping[str, Any]) -> None:
        self._line = line
        self._reader = reader
        self._files = files
        self._options = options
        self._sha256: dict[str, str] = {}  # of files read to their end
        self._under_way: Counter[str] = Counter()  # blocks of a file that were not taken yet

    def check(self) -> list[Finding]:
        """What the checks find in all files; nothing is taken."""
        watch = _Watch()

        def look(done: Done) -> bool:
            watch.add(done)
            return True

        self._pass(look, depth=lambda: Depth.CHECK)
        return watch.findings()

    def take(self, taker: Taker, report: IngestReport, *, warn: Warn, ahead: int) -> None:
        """Hand every block to the taker; what the checks find is put in the report.

        warn is told once, when `ahead` frames were checked or all. Raises IngestError where a file cannot be read
        further, after everything before that place was handed over.
        """
        watch = _Watch()

        def hand_over(done: Done) -> bool:
            if not taker.can_take(done):
                return False
            watch.add(done)
            if watch.frames >= ahead and not watch.told:
                report.findings = watch.tell(warn)
            taker.take(done)
            return True

        try:
            self._pass(hand_over, depth=lambda: taker.depth)
        finally:
            report.findings = watch.findings() if watch.told else watch.tell(warn)

    def whole_files(self, counts: Mapping[str, Counter[str]]) -> dict[str, FileReading]:
        """The files that were read to their end and whose blocks all came through; counts are a Taker's."""
        return {
            name: FileReading(digest, counts[name]["records"], counts[name]["quarantined"])
            for name, digest in self._sha256.items()
            if not self._under_way[name]
        }

    def _pass(self, take: Callable[[Done], bool], *, depth: Callable[[], Depth]) -> None:
        """Read all files. take says whether it is through with a block, which else gets the whole work."""
        self._sha256.clear()
        for file in self._files:
            digest = FileDigest()
            options = {**self._options, "digest": digest, "file": file.name}
            try:
                for block in blocks(self._reader, file.path, file=file.name, options=options):
                    while self._line.full:
                        self._take_one(take)
                    self._line.put(block, depth())
                    self._under_way[file.name] += 1
            except WorkerDied:
                raise
            except IngestError:
                self._empty(take)  # an error further up in the file comes first
                raise
            self._sha256[file.name] = content_sha256(file.path, digest)
        self._empty(take)

    def _empty(self, take: Callable[[Done], bool]) -> None:
        while len(self._line):
            self._take_one(take)

    def _take_one(self, take: Callable[[Done], bool]) -> None:
        done, block = self._line.take()
        if not take(done):
            self._line.put_back(block)
            return
        if done.error is not None:
            raise IngestError(done.error)
        self._under_way[done.file] -= 1


class _Watch:
    """The checks of a source, and whether their first findings were told."""

    def __init__(self) -> None:
        self.told = False
        self._checks = SourceChecks()

    @property
    def frames(self) -> int:
        return self._checks.frames

    def add(self, done: Done) -> None:
        if done.summaries is not None:
            self._checks.add(done.summaries)

    def findings(self) -> list[Finding]:
        return self._checks.findings()

    def tell(self, warn: Warn) -> list[Finding]:
        self.told = True
        found = self.findings()
        if found:
            warn(found)
        return found
