"""List the workers of a module."""

from __future__ import annotations

import json
from typing import Any

from sigra.cli.show import fits, inline, listing, stdout_console
from sigra.cli.target import defined_in, load_module
from sigra.definition import Definition
from sigra.options import OPTION_NAMES, PLAIN


def list_workers(module: str, *, as_json: bool) -> None:
    """Print the workers of a module to standard output, as a table or as a JSON array."""
    load_module(module)
    facts = [describe(definition) for definition in defined_in(module)]
    if as_json:
        print(json.dumps(facts, indent=2))
    elif facts:
        columns = ["worker", "kind", "options", "schema", "action"]
        rows = [_row(fact) for fact in facts]
        console = stdout_console()
        console.print(f"Workers of {module}", style="bold", markup=False)
        table = listing(columns, rows)
        if fits(console, table):
            console.print(table)
        else:
            for row in rows:
                console.print(
                    inline("  ".join(row).replace("\n", ", ")), markup=False, soft_wrap=True
                )
    else:
        print(f"module {module} defines no worker, nor does a submodule that it imports")


def describe(definition: Definition) -> dict[str, Any]:
    """Return what there is to know of a worker, as plain JSON.

    ``options`` holds those that the decorator sets; what is not JSON is shown as text.
    """
    defaults = definition.defaults
    given = {
        name: getattr(defaults, name)
        for name in OPTION_NAMES
        if getattr(defaults, name) != getattr(PLAIN, name)
    }
    schema = definition.schema
    return {
        "name": definition.name,
        "kind": "tenant" if definition.tenant else "agnostic",
        "async": definition.is_async,
        "backend": None if definition.backend is None else definition.backend.name,
        "options": {name: _plain(value) for name, value in given.items()},
        "audit_schema": None if schema is None else _schema_name(schema),
        "action": definition.action,
    }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    return getattr(value, "__name__", None) or str(value)


def _schema_name(schema: Any) -> str:
    return (
        f"{schema.__module__}.{schema.__qualname__}"
        if hasattr(schema, "__qualname__")
        else (type(schema).__qualname__)
    )


def _row(fact: dict[str, Any]) -> list[str]:
    kind = f"{fact['kind']}, {'async def' if fact['async'] else 'def'}"
    options = [f"{name}={value}" for name, value in fact["options"].items()]
    if fact["backend"] is not None:
        options.insert(0, f"backend={fact['backend']}")
    schema = fact["audit_schema"]
    return [
        fact["name"],
        kind,
        "\n".join(options) or "-",
        "-" if schema is None else schema.rpartition(".")[2],
        fact["action"] or "-",
    ]
