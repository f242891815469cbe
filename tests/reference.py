"""docs/reference.md, from the signatures and docstrings; ``make reference`` writes it.

The source is read and not imported, so no queue has to be installed.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import griffe

from sigra.registry import GROUP

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
HEAD = """\
# Reference

Every public name: how it is called, and its docstring. `sigra.` stands before each name. `make reference` writes
this page from the source. [The guide](../README.md#the-guide) says how the parts work together.
"""

SECTIONS = {
    "Workers": "tenant_worker worker TenantWorker Worker",
    "Jobs": "Job JobInfo options.JobOptions current_job fetch_arg",
    "Outcomes": "Ok Failure Snooze Cancel",
    "Scope": "AuditScope Identity tenant_args request_scope_only",
    "Auditing": "log_safe audit.log AuditEvent AuditResult Sink audit_stats",
    "Settings": "configure Signing",
    "In-process backends": "SyncBackend ThreadBackend AsyncioBackend",
    "Writing a backend": (
        "Backend backend.Capability backends.envelope.pack backends.external.consume "
        "backends.external.aconsume backends.external.Consumed"
    ),
}
"""What ``sigra`` itself has, apart from its errors."""

PACKAGES = {
    "audit": "Keeping and reading events",
    "store": "Audit store",
    "workers": "Built-in workers",
    "testing": "Testing kit",
    "web": "Audit page",
}
GIVEN = {"AuditScope", "Job", "TenantWorker", "Worker"}
"""Classes that users are given, and do not call."""

PASSED = {"FileStorage", "JSONSerializer"}
"""Classes that users pass to a queue, and whose methods they do not call."""

INTERNAL = {"choose", "given_id", "open", "prepare", "seal", "stamp", "validate", "write_in"}
"""Public members that only Sigra itself uses."""


def load() -> Any:
    """Return the package as it is written."""
    return griffe.load("sigra", search_paths=[ROOT], allow_inspection=False)


def found(package: Any, path: str) -> Any:
    """Return what a public name stands for."""
    each = package[path]
    return each.final_target if each.is_alias else each


def text(each: Any) -> str:
    """Return a docstring as Markdown."""
    return re.sub("``(.+?)``", r"`\1`", each.docstring.value) if each.docstring else ""


def called(function: Any) -> Any:
    """Return the function that help() shows: the form, of one that is ``@called_like(form)``."""
    for decorator in function.decorators:
        if decorator.callable_path.endswith(".called_like"):
            (form,) = decorator.value.arguments
            return found(function.module, str(form))
    return function


def keywords(function: Any, form: str) -> str:
    """Return what a TypedDict names, as keywords that may be left out."""
    typed = found(function.module, form)
    mine = [f"{name}: {each.annotation} = ..." for name, each in typed.members.items()]
    above = [keywords(typed, str(base)) for base in typed.bases if str(base) != "TypedDict"]
    return ", ".join([*above, *mine])


def default(written: Any) -> str:
    """Return a default as it is written, or "..." where that tells a reader nothing."""
    try:
        ast.literal_eval(str(written))
    except (SyntaxError, ValueError):
        return "..."
    return str(written)


def parameters(function: Any) -> Iterator[str]:
    """Give the parameters as they are written, without those that Python or Hypothesis passes."""
    kinds = [each.kind for each in function.parameters]
    for number, each in enumerate(function.parameters):
        before = kinds[number - 1] if number else None
        if before is griffe.ParameterKind.positional_only is not each.kind:
            yield "/"
        if each.kind is griffe.ParameterKind.keyword_only is not before:
            if griffe.ParameterKind.var_positional not in kinds:
                yield "*"
        if each.name in {"self", "cls", "draw"}:
            continue
        stars = {"var_positional": "*", "var_keyword": "**"}
        name = stars.get(each.kind.name, "") + each.name
        if form := re.fullmatch(r"Unpack\[(\w+)\]", str(each.annotation)):
            yield keywords(function, form[1])
        else:
            shown = f"{name}: {each.annotation}" if each.annotation else name
            plain = each.default is None or each.kind.name in stars
            yield shown if plain else f"{shown} = {default(each.default)}"


def signature(name: str, function: Any) -> str:
    """Return how a function is called, in lines that end between two parameters."""
    function = called(function)
    returns = "" if str(function.returns) in {"Any", "None"} else f" -> {function.returns}"
    whole = f"{name}({', '.join(parameters(function))}){returns}"
    inner = r"(?<=[^,]) |, (?=[^\[\]]*\])"
    whole = re.sub(inner, lambda space: space[0].replace(" ", "\0"), whole)
    return block(("await " if "async" in function.labels else "") + whole)


def block(code: str) -> str:
    """Return code as a block of at most 100 columns; where ``\\0`` stands for a space none ends."""
    lines = textwrap.wrap(code, 100, subsequent_indent="    ", break_on_hyphens=False)
    return "```py\n" + "\n".join(lines).replace("\0", " ") + "\n```"


def members(package: Any, each: Any) -> Iterator[str]:
    """Give what a class's public methods and properties say, as paragraphs."""
    home = found(package, "enqueue.Enqueuer") if each.name == "Worker" else each
    hidden = INTERNAL if each.name == "Backend" else INTERNAL | {"enqueue", "aenqueue"}
    parts = [base for base in home.resolved_bases if base.name not in package["testing"].exports]
    suite = [*home.members.items(), *(each for part in parts for each in part.members.items())]
    for name, member in suite if each.name.endswith("Contract") else home.members.items():
        if member.is_alias or name.startswith("_") or name in hidden or not member.docstring:
            continue
        if name.startswith("test_"):
            yield f"- `{name}`: {' '.join(text(member).split())}"
        elif member.is_function:
            owner = each.name if {"staticmethod", "classmethod"} & member.labels else ""
            yield from (signature(f"{owner}.{name}", member), text(member))
        else:
            yield from (block(f".{name}"), text(member))


def entry(package: Any, path: str) -> Iterator[str]:
    """Give what the page says of one name, as paragraphs."""
    each, name = found(package, path), path.rpartition(".")[2]
    yield f"### `{path}`"
    if each.is_function:
        yield signature(name, each)
    elif each.is_attribute:
        yield block(f"{name} = {each.value}")
    elif "__init__" in each.members and name not in GIVEN and not name.endswith("Error"):
        yield signature(name, each.members["__init__"])
    yield text(each)
    if each.is_class and name not in PASSED and not name.endswith("Error"):
        yield from members(package, each)


def sections(package: Any) -> dict[str, list[str]]:
    """Map each heading to the names below it, as they are written after ``sigra.``."""
    told = {heading: paths.split() for heading, paths in SECTIONS.items()}
    told["Errors"] = sorted(name for name in package.exports if name.endswith("Error"))
    seen = {found(package, path).path for paths in told.values() for path in paths}
    for module, heading in PACKAGES.items():
        paths = [f"{module}.{name}" for name in sorted(package[module].exports)]
        told[heading] = [path for path in paths if found(package, path).path not in seen]
    entries = [each for each in distribution("sigra").entry_points if each.group == GROUP]
    backends = {each.value.removeprefix("sigra.").replace(":", ".") for each in entries}
    queues = sorted(backends | {"backends.huey.FileStorage", "backends.huey.JSONSerializer"})
    told["Queues"] = [path for path in queues if found(package, path).path not in seen]
    return told


def page() -> str:
    """Return the page."""
    package = load()
    told = sections(package)
    parts = [HEAD, *(f"- [{heading}](#{heading.lower().replace(' ', '-')})" for heading in told)]
    for heading, paths in told.items():
        parts.append(f"## {heading}")
        for path in paths:
            parts += entry(package, path)
    whole = "\n\n".join(part.strip() for part in parts if part) + "\n"
    return re.sub(r"(?m)(^- .*\n)\n(?=- )", r"\1", whole)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
