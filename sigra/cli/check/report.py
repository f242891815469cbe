"""Report where a worker's scope would be taken for authority."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sigra.cli.check.flows import Flow, find_flows
from sigra.cli.check.sources import Sources
from sigra.cli.show import counted, inline

_NONE_MARKED = "; mark the functions that decide on access with @request_scope_only"


def report(paths: list[Path], *, as_json: bool) -> int:
    """Print each flow to standard output; return the exit status of ``sigra check``."""
    sources = Sources(paths)
    for path, reason in sources.unreadable:
        print(inline(f"{path}: cannot be read as Python: {reason}"), file=sys.stderr)
    for place, name in sources.unknown:
        print(
            f"{inline(place)}: cannot tell what @{name} is: a star import brings it from outside "
            "what is checked; import it by name, or check its file too",
            file=sys.stderr,
        )
    found = find_flows(sources)
    flows = [flow for flow in found if not flow.allowed]
    if as_json:
        print(json.dumps([_facts(flow) for flow in flows], indent=2))
    else:
        for flow in flows:
            print(inline(_line(flow)))
        workers = sum(function.worker for function in sources.functions.values())
        marked = sum(function.marked for function in sources.functions.values())
        print(
            f"{counted(len(flows), 'flow')} of the scopes of {counted(workers, 'worker')} into "
            f"{counted(marked, 'marked function')}, in {counted(len(sources.modules), 'file')}"
            f"{f'; {len(found) - len(flows)} more allowed' if len(flows) < len(found) else ''}"
            f"{'' if marked else _NONE_MARKED}",
            file=sys.stderr,
        )
    if sources.unreadable or sources.unknown:
        return 2
    return 1 if flows else 0


def _line(flow: Flow) -> str:
    way = f" by way of {', '.join(flow.way)}" if flow.way else ""
    return (
        f"{flow.place}: the audit-only scope of worker {flow.worker.name} ({flow.worker.place}) "
        f"reaches {flow.target.name} ({flow.target.place}){way}. It carries no authority: "
        "authorize before .new(), or load the host's own scope in the job."
    )


def _facts(flow: Flow) -> dict[str, object]:
    return {
        "place": flow.place,
        "worker": flow.worker.name,
        "worker_place": flow.worker.place,
        "target": flow.target.name,
        "target_place": flow.target.place,
        "way": list(flow.way),
    }
