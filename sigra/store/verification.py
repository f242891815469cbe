"""Verifying a store: whether what is there is what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import Any, Unpack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, bindparam, select

from sigra.store.access import read_tables
from sigra.store.anchors import Anchors
from sigra.store.chain import chain_tag, is_tag, organization_of
from sigra.store.check import FINDINGS, ChainCheck
from sigra.store.checkpoint import Checkpoint
from sigra.store.diagnose import Places
from sigra.store.errors import UPGRADE, AuditTablesError
from sigra.store.keys import by_id
from sigra.store.marks import read_marks
from sigra.store.migrate import HEAD, checked_version
from sigra.store.query import of_tenancy
from sigra.store.reading import EventFilter, Tenancy, tenancy
from sigra.store.ready import make_ready
from sigra.store.report import Finding, Level, Report, Verdict
from sigra.store.seen import hidden
from sigra.store.sink import SqlAuditSink
from sigra.store.stored import is_text
from sigra.store.strays import count_strays, find_strays
from sigra.store.tables import chains, entries

_AT_ONCE = 2_000

_ROWS = select(entries).order_by(entries.c.chain, entries.c.sequence)
_PLACES = select(entries.c.sequence, entries.c.previous, entries.c.hash).where(
    entries.c.chain == bindparam("of_chain")
)
"""Made once, for making it takes as long as running it."""

_SEARCHES = 10_000
"""For so many rows it is searched where they stood; of more, the kind is a guess."""

Progress = Callable[[int], object]


def verify(
    sink: SqlAuditSink,
    *,
    public_keys: Iterable[Ed25519PublicKey] = (),
    checkpoints: Sequence[Checkpoint] = (),
    progress: Progress | None = None,
    **which: Unpack[Tenancy],
) -> Report:
    """Check one organization's chain (``organization_id=``) or all (``all_organizations=True``).

    ``public_keys``: of the keys that may sign marks and checkpoints; without any, unsigned marks
    are believed. ``checkpoints`` come from outside the database, oldest first, and need
    ``public_keys``. ``progress`` is called now and then with the number of rows checked so far.
    Everything is read in one transaction.
    """
    keys = by_id(public_keys)
    if checkpoints and not keys:
        raise ValueError("checkpoints cannot be checked without public_keys: pass them too")
    found = tenancy(**which)
    make_ready(sink)
    anchors = Anchors(checkpoints, keys)
    verification = _Verification(found, anchors, keys or None, progress)
    read_tables(sink.database, verification.run)
    level: Level = "anchored" if anchors.last is not None else "signed" if keys else "chained"
    return verification.report(level)


class _Verification:
    """One pass over the rows, in the order of their chains."""

    def __init__(
        self, which: EventFilter, anchors: Anchors, keys: Any, progress: Progress | None
    ) -> None:
        self._which, self._anchors, self._keys = which, anchors, keys
        self._progress = progress
        self.checks: dict[int, ChainCheck]
        self.findings: list[Finding]

    def run(self, connection: Connection) -> None:
        """Read and check everything; called once more, start from the beginning."""
        if checked_version(connection) != HEAD:
            raise AuditTablesError(
                f"are missing or of an older version: to bring them to this one, {UPGRADE}"
            )
        self.checks, self.findings, self._omitted, self._searched = {}, [], 0, 0
        tags = self._open_checks(connection)
        known = self.checks.get
        # Of this query alone: by an option of the connection each search would have a cursor too.
        streamed = self._rows(tags).execution_options(yield_per=_AT_ONCE)
        with connection.execute(streamed) as rows:
            for done, row in enumerate(rows, 1):
                check = known(row.chain)
                if check is not None:
                    check.row(*row)
                if self._progress is not None and done % _AT_ONCE == 0:
                    self._progress(done)
        for check in self.checks.values():
            check.end()
        known_tags = {check.tag for check in self.checks.values()}
        self._find_strays(connection, known_tags)
        self._find_lost_chains(known_tags)
        why = hidden(connection, everything=self._which.all_organizations)
        self.findings += [Finding(None, 0, None, "changed", each) for each in islice(why, FINDINGS)]

    def _open_checks(self, connection: Connection) -> dict[int, str]:
        query = of_tenancy(select(chains), self._which)
        heads = [head for head in connection.execute(query) if self._is_head(head)]
        tags = {head.id: head.tag for head in heads}
        marked = read_marks(connection, tags, self._keys)
        for head in heads:
            if head.id in self.checks:
                reason = f"there is another row of chain {head.id}"
                self.findings.append(
                    Finding(organization_of(head.tag), 0, None, "inserted", reason)
                )
            anchored = self._anchors.of_chain(head.tag)
            places = partial(self._places, connection, head.id)
            self.checks[head.id] = ChainCheck(
                head, marked[head.id], anchored, places, self.findings.append
            )
        return tags

    def _places(self, connection: Connection, chain: int) -> Places:
        """Return sequence, previous hash and hash of all entries of a chain, while few are asked.

        Each costs a query: without an end, 200,000 broken chains took four minutes, and more.
        """
        self._searched += 1
        if self._searched > _SEARCHES:
            return ()
        return [tuple(row) for row in connection.execute(_PLACES, {"of_chain": chain})]

    def _is_head(self, head: Any) -> bool:
        """Tell whether a chain's row has values of the right types: SQLite takes any others."""
        good = [*map(type, head)] == [int, str, int, bytes]
        good = good and is_text(head.tag) and is_tag(head.tag)
        if not good and len(self.findings) < FINDINGS:
            reason = f"the row of chain {head.id!r} has a value of a kind that is never written"
            self.findings.append(Finding(None, 0, None, "changed", reason))
        elif not good:
            self._omitted += 1
        return good

    def _rows(self, tags: dict[int, str]) -> Any:
        if self._which.all_organizations:
            return _ROWS
        return _ROWS.where(entries.c.chain.in_(list(tags)))

    def _find_strays(self, connection: Connection, tags: set[str]) -> None:
        """Find chains that have no row of their own."""
        everything = self._which.all_organizations
        tags = tags | self._anchors.tags if everything else {chain_tag(self._which.organization_id)}
        strays = find_strays(connection, tags, everything=everything)
        self.findings += (first := list(islice(strays, FINDINGS)))
        if everything and len(first) == FINDINGS:  # each costs some queries
            self._omitted += count_strays(connection) - FINDINGS

    def _find_lost_chains(self, tags: set[str]) -> None:
        for tag in self._anchors.tags - tags:
            organization = organization_of(tag)
            if self._which.all_organizations or self._which.organization_id == organization:
                reason = "a checkpoint has this chain, and it is gone"
                self.findings.append(Finding(organization, 1, None, "truncated", reason))

    def report(self, level: Level) -> Report:
        """Return the report of what was found."""
        checks = self.checks.values()
        findings = [*self._anchors.findings, *self.findings]
        omitted = sum(max(0, check.found - FINDINGS) for check in checks) + self._omitted
        rows = sum(check.rows for check in checks)
        pruned = sum(check.pruned for check in checks)
        verdict: Verdict = "broken" if findings else "intact" if rows or pruned else "empty"
        last = self._anchors.last
        return Report(
            verdict=verdict,
            level=level,
            chains=len(self.checks),
            rows=rows,
            pruned=pruned,
            erased=sum(check.erased for check in checks),
            unanchored=sum(check.unanchored for check in checks),
            checkpoint_age=None if last is None else datetime.now(timezone.utc) - last.at,
            findings=tuple(findings),
            found=len(findings) + omitted,
        )
