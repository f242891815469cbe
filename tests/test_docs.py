"""Every snippet of the README and the guide runs, and prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import sigra
from sigra import (
    Cancel,
    JobCancelledError,
    SigraError,
    audit,
    configure,
    store,
    tenant_worker,
    workers,
)
from sigra.workers import settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_VARYING = [
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "<time>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
]


def settled(text: str) -> str:
    """Put what differs from run to run out of the way."""
    for pattern, stand_in in _VARYING:
        text = re.sub(pattern, stand_in, text)
    return text.strip()


_python = PythonEvaluator()


def run(example: Example) -> None:
    example.namespace["__name__"] = "__main__"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        _python(example)
    example.namespace["printed"] = printed.getvalue()


def compare(example: Example) -> None:
    assert settled(example.namespace["printed"]) == settled(str(example.parsed))


PARSERS = [
    CodeBlockParser(language="python", evaluator=run),
    CodeBlockParser(language="text", evaluator=compare),
]


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page configures ends with it."""
    monkeypatch.setattr(settings, "_settings", settings._settings)
    before = structlog.get_config()
    with configure():
        yield
    structlog.configure(**before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_snippet_of_the_page_runs_and_prints_what_it_says(page: Path) -> None:
    """The page's code works as written."""
    examples = list(Sybil(parsers=PARSERS).parse(page).examples())
    for example in examples:
        example.evaluate()
    assert examples or "```python" not in page.read_text()


def test_each_error_that_a_page_names_can_be_caught() -> None:
    """What Sigra raises and the guide names is public in one of its packages."""
    public = {name for module in (sigra, audit, store, workers) for name in module.__all__}
    named = {name for page in PAGES for name in re.findall(r"\b[A-Z]\w+Error\b", page.read_text())}
    classes = [SigraError]
    for each in classes:
        classes += each.__subclasses__()
    assert set() == {each.__name__ for each in classes} & named - public


_SPOILT = """
import django
from django.conf import settings
from django.db import connections, models, router, transaction

file = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
class Router:
    def db_for_write(self, model, **hints): return "shop"
    db_for_read = db_for_write

databases = {"DATABASES": {"default": file, "shop": file}, "DATABASE_ROUTERS": [Router()]}
settings.configure(INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="", **databases)
django.setup()

class Order(models.Model):
    id = models.IntegerField(primary_key=True)
    class Meta: app_label = "shop"

class Audit(models.Model):
    event_id = models.UUIDField(primary_key=True)
    class Meta: app_label = "shop"

with connections["shop"].schema_editor() as editor:
    editor.create_model(Order)
    editor.create_model(Audit)
    fails = "CREATE TRIGGER fails AFTER INSERT ON shop_audit BEGIN SELECT RAISE(FAIL, 'no'); END"
    editor.execute(fails)  # and leaves the row to whoever rolls back

from sigra import configure, log_safe
{records}
configure(sinks=[Records()], audit_schema=Audit)
with transaction.atomic(using="shop"):
    Order.objects.create(id=1)
    print(log_safe("order.ship", None).status)
    Order.objects.create(id=2)
print(Order.objects.count(), Audit.objects.count())
"""


@pytest.mark.programs
def test_the_django_sink_of_the_guide_spoils_no_transaction() -> None:
    """An event that cannot be kept has failed, and the caller's rows are there, in any database."""
    pytest.importorskip("django")
    page = (ROOT / "docs" / "setting-up.md").read_text("utf-8")
    records = re.search(r"^    class Records:.*?pass$", page, re.DOTALL | re.MULTILINE)
    assert records is not None
    program = _SPOILT.replace("{records}", textwrap.dedent(records[0]))
    command = [sys.executable, "-W", "error", "-c", program]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.stderr.count("Traceback") == 0, told.stderr
    assert told.stdout.split()[-3:] == ["failed", "2", "0"]


@dataclass(frozen=True)
class NoSuchInvoice(Exception):
    number: int


@pytest.mark.parametrize("raised", [ValueError, NoSuchInvoice])
def test_the_filter_of_the_guide_for_sentry_leaves_one_report_of_each_error(
    raised: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Sigra's line is kept, what a queue then raises of it is dropped, and so is a Cancel."""
    page = (ROOT / "docs" / "observability.md").read_text("utf-8")
    snippet = re.search(
        r"^from sigra import Job.*?^    return event$", page, re.DOTALL | re.MULTILINE
    )
    assert snippet is not None
    names: dict[str, Any] = {}
    exec(snippet[0], names)
    once = names["once"]

    @tenant_worker(name="docs.ends")
    def ends(scope: Any, fails: bool) -> Any:
        if fails:
            raise raised(9)
        return Cancel("nobody there")

    def reported(error: BaseException, **event: Any) -> bool:
        return once(event, {"exc_info": (type(error), error, None)}) is not None

    ids = {"organization_id": "42", "actor_id": None}
    failed, cancelled = ends.new({**ids, "fails": True}), ends.new({**ids, "fails": False})
    (line,) = caplog.records
    error = line.exc_info[1]  # type: ignore[index]
    event = {"logger": line.name, "extra": vars(line)}
    assert event == once(event, {"exc_info": line.exc_info})
    assert event["fingerprint"] == ["{{ default }}", "docs.ends"]
    with pytest.raises(raised) as caught:
        failed.result()
    wrapped = RuntimeError("huey's")
    wrapped.__cause__ = caught.value
    assert (error, False, False) == (caught.value, reported(error), reported(wrapped))
    with pytest.raises(JobCancelledError) as ended:
        cancelled.result()
    assert (False, True) == (reported(ended.value), reported(OSError("native"), extra={}))
    ring = OSError("native")
    ring.__cause__ = ring
    assert reported(ring)
