"""The end of the pipeline: decide which frames are new and append them in batches."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mlipdb.database import Database
from mlipdb.ingest.duplicates import Contender, Decision, DuplicateFilter
from mlipdb.ingest.reader import Rejected
from mlipdb.ingest.report import IngestReport
from mlipdb.ingest.work import Candidate, Depth, Done
from mlipdb.labels import Method
from mlipdb.records import CopiedRecord, RejectedRecord, SymmetryTool
from mlipdb.store.prepared import Prepared

SHOWN = 1000  # rejected records that a report holds; the catalog has them all
BATCH_BYTES = 64 << 20  # compressed records of a batch, where Hessians make records large


@dataclass
class _Batch:
    """What one append will write."""

    records: list[Prepared] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    copies: list[CopiedRecord] = field(default_factory=list)
    read: int = 0
    bytes: int = 0


class Taker:
    """Takes finished blocks in file order. Memory holds one batch."""

    def __init__(
        self,
        db: Database,
        *,
        source_id: int,
        method_id: int,
        symmetry: SymmetryTool | None,
        batch: int,
        report: IngestReport,
        progress: Callable[[IngestReport], None],
    ) -> None:
        self._db = db
        self._source = source_id
        self._method = method_id
        self._symmetry = symmetry
        self.batch = batch
        self._report = report
        self._progress = progress
        self._filter = DuplicateFilter(db, source_id=source_id)
        self._methods: list[tuple[Method, int]] = []  # few: they are compared one by one
        self._open = _Batch()
        self.depth = Depth.WHOLE  # how far to work on the next blocks: where all is known, hashes are enough
        self.files: dict[str, Counter[str]] = defaultdict(Counter)  # records and quarantined ones of each

    def can_take(self, done: Done) -> bool:
        """False for a block that was only hashed but holds new frames: it needs the whole work."""
        if done.depth is Depth.WHOLE or self._filter.all_known(self._contenders(done, done.items)):
            return True
        self.depth = Depth.WHOLE
        return False

    def take(self, done: Done) -> None:
        """Take a block's new frames and count the others."""
        before = self._report.taken
        prepared = self._with_methods(done)
        step = max(min(len(done.items), self.batch), 1)
        for start in range(0, len(done.items), step):
            items = done.items[start : start + step]
            decisions = self._filter.decide(self._contenders(done, items))
            self._sort(items, decisions, prepared, file=done.file)
        if any(isinstance(item, Candidate) for item in done.items):
            self.depth = Depth.HASH if self._report.taken == before else Depth.WHOLE

    def flush(self) -> None:
        """Write what is in memory."""
        batch, self._open = self._open, _Batch()
        if batch.records or batch.rejected or batch.copies:
            self._db.append(
                batch.records,
                source_id=self._source,
                method_id=self._method,
                symmetry=self._symmetry,
                rejected=batch.rejected,
                copies=batch.copies,
            )
        self._filter.stored()

    def _contenders(self, done: Done, items: Sequence[Candidate | Rejected]) -> list[Contender]:
        """The frames among some items of a block as the filter wants them."""
        methods = [self._method_id(method) for method in done.methods]
        return [
            Contender(
                item.external_id,
                item.material,
                (item.structure_hash, item.label_hash),
                self._method if item.method is None else methods[item.method],
            )
            for item in items
            if isinstance(item, Candidate)
        ]

    def _with_methods(self, done: Done) -> Iterator[Prepared]:
        candidates = [item for item in done.items if isinstance(item, Candidate)]
        for candidate, record in zip(candidates, done.prepared, strict=done.depth is Depth.WHOLE):
            own = None if candidate.method is None else self._method_id(done.methods[candidate.method])
            yield record if own is None else replace(record, method_id=own)

    def _sort(
        self,
        items: Sequence[Candidate | Rejected],
        decisions: Sequence[Decision],
        prepared: Iterator[Prepared],
        *,
        file: str,
    ) -> None:
        """Put records where the decisions for the frames among them say."""
        following = iter(decisions)
        for item in items:
            if isinstance(item, Rejected):
                self._reject(item, file)
                continue
            decision, record = next(following), next(prepared, None)
            if decision.conflict is not None:
                self._reject(Rejected(key=item.external_id, location=item.location, reason=decision.conflict), file)
            elif decision.external_id is not None and record is not None:
                named = decision.external_id == record.external_id
                self._keep(record if named else replace(record, external_id=decision.external_id))
            else:
                self._report.duplicates += 1
                self._report.already_taken += decision.already
                if decision.copy_of is not None:
                    self._open.copies.append(CopiedRecord(decision.copy_of, item.external_id, item.row))
        self.files[file]["records"] += len(items)
        self._open.read += len(items)
        if self._open.read >= self.batch or self._open.bytes >= BATCH_BYTES:
            self.flush()
        self._progress(self._report)

    def _keep(self, record: Prepared) -> None:
        self._open.records.append(record)
        self._open.bytes += len(record.record.data)
        self._report.taken += 1

    def _reject(self, item: Rejected, file: str) -> None:
        record = RejectedRecord(key=item.key, location=f"{file}: {item.location}", reason=item.reason)
        self._open.rejected.append(record)
        self._report.quarantined += 1
        self.files[file]["quarantined"] += 1
        if len(self._report.rejected) < SHOWN:
            self._report.rejected.append(record)

    def _method_id(self, method: Method) -> int:
        for known, identity in self._methods:
            if known == method:
                return identity
        self._methods.append((method, self._db.method_id(method)))
        return self._methods[-1][1]
