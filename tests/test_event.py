"""What an audit event, its action and its result are, and how sinks keep it."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import pickle
import signal
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from amounts import MANY

from sigra import AuditEvent, AuditResult, Sink
from sigra.audit import JSONLinesSink
from sigra.audit.action import RESERVED, accepted, action_fault, check_action
from sigra.audit.event import event_of, result_of
from sigra.audit.stats import AuditStats
from sigra.frozen import thaw
from sigra.store import lines
from sigra.store.errors import AuditSinkClosedError

FORKS = 20 if MANY else 5
FIELDS = (
    "event_id action outcome organization_id actor_id effective_user_id actor_type target_id "
    "target_type ip_address user_agent metadata occurred_at worker job_id attempt"
).split()


def test_an_event_has_the_fields_of_the_contract() -> None:
    """An event has exactly the contract's fields, in its order."""
    assert FIELDS == [field.name for field in dataclasses.fields(AuditEvent)]


def test_an_event_needs_only_its_action() -> None:
    """All but the action has a default: success, no ids, a fresh id, now in UTC."""
    before = datetime.now(timezone.utc)
    event = AuditEvent(action="invoice.close")
    assert "success" == event.outcome
    assert {} == event.metadata
    assert event.organization_id is event.actor_id is event.worker is None
    assert timedelta(0) == event.occurred_at.utcoffset()
    assert before <= event.occurred_at <= datetime.now(timezone.utc)


def test_events_have_ids_of_their_own() -> None:
    """Two events made without an id have different ones, of version 7."""
    first, second = AuditEvent(action="a.b"), AuditEvent(action="a.b")
    assert first.event_id != second.event_id
    assert "7" == first.event_id[14]


@pytest.mark.parametrize("name", ["action", "event_id", "colour"])
def test_an_event_cannot_be_changed(name: str) -> None:
    """Setting any attribute of an event, known or not, raises FrozenInstanceError."""
    event = AuditEvent(action="a.b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, "x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(AuditResult("emitted"), name, "x")


def test_an_event_takes_keywords_only() -> None:
    """An event has too many fields to be made by position."""
    with pytest.raises(TypeError):
        AuditEvent("id", "a.b")  # type: ignore[misc]


def test_an_event_survives_pickling_and_copying() -> None:
    """A pickled, copied or replaced event is an event with the same fields."""
    event = AuditEvent(action="a.b", metadata={"lines": [1]})
    assert event == pickle.loads(pickle.dumps(event))
    assert event == copy.copy(event) == copy.deepcopy(event)
    assert "c.d" == dataclasses.replace(event, action="c.d").action


def test_the_fast_way_makes_the_same_event() -> None:
    """An event made from checked values equals the one made by keyword, and is as frozen."""
    event = event_of(FIELDS)
    assert AuditEvent(**{name: name for name in FIELDS}) == event  # type: ignore[arg-type]
    assert type(event) is AuditEvent
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.action = "c.d"  # type: ignore[misc]


def test_the_fast_way_makes_the_same_result() -> None:
    """A result made in the fast way equals the one made by its class."""
    assert AuditResult("failed", "why", None, ("$.a",)) == result_of(
        "failed", "why", None, ("$.a",)
    )


def test_a_results_event_is_made_when_it_is_read() -> None:
    """A result of a log line has one event, the same as a result made with it, pickled too."""
    line, event = {name: name for name in (*FIELDS, "level")}, event_of(FIELDS)
    result = result_of("emitted", None, line, ())
    assert result.event is result.event
    assert event == result.event
    assert AuditResult("emitted", None, event) == result_of("emitted", None, line, ())
    copies = pickle.loads(pickle.dumps(result)), copy.deepcopy(result), dataclasses.replace(result)
    assert [result] * 3 == list(copies)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.event = None  # type: ignore[misc]


def test_a_result_defaults_to_nothing_to_say() -> None:
    """Only the status of a result must be given."""
    result = AuditResult("disabled")
    assert (None, None, ()) == (result.reason, result.event, result.redacted)


def test_a_copy_of_metadata_is_apart_from_it() -> None:
    """Changing a copy, however deep, leaves the metadata as it was."""
    metadata = {"deep": {"list": [{}, 1]}}
    copy_of_it = thaw(metadata)
    assert metadata == copy_of_it
    copy_of_it["deep"]["list"][0]["x"] = 1
    assert {"deep": {"list": [{}, 1]}} == metadata


@pytest.mark.parametrize(
    "action", ["a.b", "invoice.close", "invoice.line_2.add", "a1.b_", "authority.grant", "apis.x"]
)
def test_a_good_action_is_accepted(action: str) -> None:
    """Lower-case words of letters, digits and _, joined by dots, make an action."""
    check_action(action)
    assert action_fault(action) is None


@pytest.mark.parametrize(
    "action",
    [
        "", "invoice", "Invoice.close", "invoice.", ".close", "invoice..close", "invoice close",
        "invoice.close\n", "1.close", "_a.close", "invoice.1", "invoice-close.x", "învoice.close",
        "a.b ", "a." + "b" * 300, "a.b\x00", "a.ｂ", None, 1, b"a.b", ["a.b"],
    ],
)  # fmt: skip
def test_a_bad_action_is_refused(action: Any) -> None:
    """Anything else raises ValueError, as a whole string and not as a prefix of one."""
    with pytest.raises(ValueError, match=r"invoice\.close"):
        check_action(action)


@pytest.mark.parametrize("prefix", RESERVED)
def test_a_reserved_action_is_refused(prefix: str) -> None:
    """The library's own prefixes raise ValueError, which names them."""
    with pytest.raises(ValueError, match="reserved"):
        check_action(prefix + "login")


def test_an_action_of_a_subclass_of_str_is_the_str_that_it_is() -> None:
    """No code of the subclass runs, and a plain str comes back."""

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise AssertionError

        startswith = __len__ = __str__  # type: ignore[assignment]

    action = check_action(Text("a.b"))
    assert (str, "a.b") == (type(action), action)
    with pytest.raises(ValueError, match="reserved"):
        check_action(Text("auth.login"))


def test_accepted_actions_do_not_pile_up() -> None:
    """What is remembered of accepted names is bounded."""
    for number in range(5_000):
        check_action(f"made.up_{number}")
    assert len(accepted) <= 4_096


def test_stats_are_read_by_name_and_key() -> None:
    """A count is read as an attribute, by key and by index, and cannot be changed."""
    stats = AuditStats(3, 2, 1)
    assert 3 == stats.emitted == stats["emitted"] == stats[0] == dict(stats)["emitted"]
    assert (3, 2, 1) == tuple(stats)
    with pytest.raises(AttributeError):
        stats.failed = 5  # type: ignore[misc]
    with pytest.raises((KeyError, TypeError)):
        stats["unknown"]


def lines_of(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_json_lines_sink_is_a_sink() -> None:
    """JSONLinesSink has the members of the Sink port."""
    assert isinstance(JSONLinesSink(io.BytesIO()), Sink)


@pytest.mark.parametrize("target", [None, 3, b"audit.jsonl"])
def test_what_is_neither_a_path_nor_a_stream_is_refused_at_once(target: Any) -> None:
    """As what an environment gives that lacks the variable: each event would fail."""
    with pytest.raises(TypeError, match="^a JSONLinesSink writes to a path or to an open stream"):
        JSONLinesSink(target)


def test_a_line_has_the_fields_of_the_event() -> None:
    """Each event becomes one line with its fields, the moment in ISO 8601 and UTC."""
    stream = io.BytesIO()
    sink = JSONLinesSink(stream)
    event = AuditEvent(action="a.b", metadata={"n": 1})
    sink.write(event, event)
    sink.write(AuditEvent(action="c.d"), None)
    first, second = lines_of(stream)
    assert FIELDS == list(first)
    assert ("a.b", {"n": 1}, "c.d") == (first["action"], first["metadata"], second["action"])
    assert event.occurred_at == datetime.fromisoformat(first["occurred_at"])
    assert first["occurred_at"].endswith("+00:00")


def test_a_text_stream_works_as_well() -> None:
    """The sink writes text to a text stream."""
    stream = io.StringIO()
    JSONLinesSink(stream).write(AuditEvent(action="a.b"))
    assert "a.b" == json.loads(stream.getvalue())["action"]


def test_the_handler_of_a_signal_amid_a_line_is_refused_and_does_not_wait() -> None:
    """It would wait for its own thread; the line is written to its end."""

    class Interrupted(io.BytesIO):
        def write(self, line: Any) -> int:
            for use in (sink.close, lambda: sink.write(AuditEvent(action="c.d"))):
                with pytest.raises(RuntimeError, match="a signal handler"):
                    use()
            return super().write(line)

    stream = Interrupted()
    sink = JSONLinesSink(stream)
    # In another thread, which would wait for ever and end with the suite.
    writing = threading.Thread(target=sink.write, args=[AuditEvent(action="a.b")], daemon=True)
    writing.start()
    writing.join(60)
    assert ["a.b"] == [line["action"] for line in lines_of(stream)]


def test_a_file_is_appended_to_and_closed(tmp_path: Path) -> None:
    """A path is opened for appending, and closed by close, which may be called twice."""
    path = tmp_path / "audit.jsonl"
    for action in ("a.b", "c.d"):
        sink = JSONLinesSink(path)
        sink.write(AuditEvent(action=action))
        assert path.read_bytes().endswith(b"\n")  # flushed before it is closed
        sink.close()
        sink.close()
    assert ["a.b", "c.d"] == [json.loads(line)["action"] for line in path.read_text().splitlines()]
    with pytest.raises(AuditSinkClosedError):
        sink.write(AuditEvent(action="e.f"))


@pytest.mark.parametrize("move", [lambda path: path.rename(f"{path}.1"), Path.unlink])
def test_a_file_that_was_moved_or_removed_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: Any
) -> None:
    """No event goes to a file that a rotation of logs throws away; whatever folder is current."""
    monkeypatch.chdir(tmp_path)
    sink, path = JSONLinesSink("audit.jsonl"), tmp_path / "audit.jsonl"
    monkeypatch.chdir("/")
    for action in ("a.b", "c.d"):
        sink.write(AuditEvent(action=action))
        (line,) = path.read_text().splitlines()
        assert action == json.loads(line)["action"]
        move(path)
    sink.close()


def test_a_path_leads_where_the_system_would_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``current/../shared``, where ``current`` is a link to a release."""
    for folder in ("shared", "releases/1", "releases/shared"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "current").symlink_to(tmp_path / "releases/1")
    monkeypatch.chdir(tmp_path)
    JSONLinesSink("current/../shared/audit.jsonl").close()
    assert [tmp_path / "releases/shared/audit.jsonl"] == list(tmp_path.rglob("*.jsonl"))
    with pytest.raises(IsADirectoryError):
        JSONLinesSink("audit/")


def test_no_line_is_empty_because_another_process_was_amid_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all processes open the file anew at once that a rotation of logs has moved."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"half": ')
    with path.open("ab", buffering=0) as other:
        monkeypatch.setattr(lines, "sleep", lambda _: other.write(b"1}\n"))
        sink = JSONLinesSink(path)
        sink.write(AuditEvent(action="a.b"))
        sink.close()
    assert ["half", "action"] == [
        next(key for key in ("half", "action") if key in json.loads(line))
        for line in path.read_text().splitlines()
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_no_file_takes_the_name_of_a_pipe_that_was_removed(tmp_path: Path) -> None:
    """Its reader could not make it again, and would never read that file."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = JSONLinesSink(path)
    sink.write(AuditEvent(action="a.b"))
    os.close(reader)
    path.unlink()
    with pytest.raises(BrokenPipeError):
        sink.write(AuditEvent(action="c.d"))
    assert not path.exists()
    with pytest.raises(BrokenPipeError):
        sink.close()


def test_a_file_whose_folder_is_gone_takes_no_event_until_it_is_back(tmp_path: Path) -> None:
    """The event fails, where it would be in a file that nobody finds; the sink is left open."""
    folder = tmp_path / "audit"
    folder.mkdir()
    sink = JSONLinesSink(folder / "audit.jsonl")
    sink.write(AuditEvent(action="a.b"))
    folder.rename(tmp_path / "moved")
    for stands_there in (lambda: None, folder.touch):
        stands_there()
        with pytest.raises(OSError, match=r"audit\.jsonl"):
            sink.write(AuditEvent(action="c.d"))
    folder.unlink()
    folder.mkdir()
    sink.write(AuditEvent(action="e.f"))
    sink.close()
    (line,) = (folder / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["action"] == "e.f"


def test_a_stream_of_the_caller_is_left_open() -> None:
    """Closing the sink flushes the caller's own stream and leaves it open."""
    stream = io.BytesIO()
    JSONLinesSink(stream).close()
    assert not stream.closed


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x7f", "\u202e", "\u2066", "\x1b"])
def test_no_hidden_character_stands_raw(sign: str) -> None:
    """Control, bidirectional and line-separating characters are escaped in a line."""
    stream = io.BytesIO()
    JSONLinesSink(stream).write(AuditEvent(action="a.b", target_id=f"x{sign}y"))
    text = stream.getvalue().decode()
    assert sign not in text
    assert f"\\u{ord(sign):04x}" in text
    assert f"x{sign}y" == json.loads(text)["target_id"]


def test_lines_of_threads_do_not_mix() -> None:
    """Events written by several threads at once are whole lines, none missing."""
    stream = io.BytesIO()
    sink = JSONLinesSink(stream)

    def write(name: str) -> None:
        for number in range(200):
            sink.write(AuditEvent(action="a.b", target_id=f"{name}{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 800 == len({line["target_id"] for line in lines_of(stream)})


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_lines_are_written_writes_its_own(tmp_path: Path) -> None:
    """It waits for no thread that it does not have, and every line of both is whole and one."""
    sink = JSONLinesSink(tmp_path / "audit.jsonl")
    stop, hurry = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            sink.write(AuditEvent(action="of.parent", metadata={"x": "y" * 300}))
            if not hurry.is_set():
                time.sleep(0.001)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        ends = [_end_of_a_child_that_writes(sink, hurry) for _ in range(FORKS)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sink.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    assert ([0] * FORKS, FORKS) == (ends, sum(line["action"] == "of.child" for line in lines))
    assert len(lines) == len({line["event_id"] for line in lines})


def _end_of_a_child_that_writes(sink: JSONLinesSink, hurry: threading.Event) -> int:
    hurry.set()
    time.sleep(0.005)  # when the fork comes, some thread is at a line: it ends its turn by writing
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child, which a signal ends where it hangs
        signal.alarm(60)
        sink.write(AuditEvent(action="of.child"))
        os._exit(0)
    hurry.clear()
    return os.waitpid(child, 0)[1]


def test_after_a_line_that_was_cut_off_the_next_is_whole(tmp_path: Path) -> None:
    """Where a full disk takes half a line, the event fails, and no later one is spoiled by it."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "audit.jsonl"
    sink = JSONLinesSink(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            sink.write(AuditEvent(action="a.b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.write(AuditEvent(action="c.d"))
    sink.close()  # whose last line the file has
    half, whole = path.read_text().splitlines()
    assert (100, "c.d") == (len(half), json.loads(whole)["action"])


def test_half_a_line_of_an_earlier_process_spoils_no_event(tmp_path: Path) -> None:
    """Where a crash or a full disk cut a line off, the next process begins one of its own."""
    path = tmp_path / "audit.jsonl"
    for left in ("", '{"action":"a.b"}\n', '{"action":"a.b"}\n{"action":'):
        path.write_text(left)
        sink = JSONLinesSink(path)
        sink.write(AuditEvent(action="c.d"))
        sink.write(AuditEvent(action="e.f"))
        sink.close()
        whole = path.read_text().splitlines()[left.count("{") :]
        assert ["c.d", "e.f"] == [json.loads(line)["action"] for line in whole]


def test_closing_tells_that_the_last_line_was_lost() -> None:
    """Who writes a file to its end hears there that the disk was full, and once is enough."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    sink = JSONLinesSink("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        sink.write(AuditEvent(action="a.b"))
    with pytest.raises(OSError, match="No space left"):
        sink.close()
    sink.close()
