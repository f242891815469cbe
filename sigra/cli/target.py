"""What the command line names: a module, its worker, a backend."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from sigra import catalog, config
from sigra.backend import Backend
from sigra.cli.show import printable
from sigra.definition import Definition
from sigra.errors import EnqueueError, UnknownBackendError
from sigra.options import check_capabilities
from sigra.proxy import Worker
from sigra.registry import resolve_backend

_OURS = str(Path(__file__).parents[1]) + os.sep
_IMPORTING = ("<frozen", os.path.dirname(import_module.__code__.co_filename) + os.sep)
"""Where the files of the importer begin."""


class MisuseError(click.ClickException):
    """End the command with one line and status 2: it was called in a way that cannot work."""

    exit_code = 2


class Once(click.Command):
    """Refuse an option that is given twice and has one value: click would drop the first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of a command."""
        words = list(args)
        rest = super().parse_args(ctx, args)  # which shows the help where that is asked for
        _, _, given = self.make_parser(ctx).parse_args(words)
        for option in [] if ctx.resilient_parsing else given:
            several = not isinstance(option, click.Option) or option.multiple or option.is_flag
            if given.count(option) > 1 and not several:
                raise MisuseError(f"{option.opts[0]} is given more than once")
        return rest


def from_here(path: str) -> str:
    """Return a path as seen from the current folder; as it is, if on another drive of Windows."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return path


def load_module(name: str) -> Any:
    """Import a module, from the current folder too; ``MisuseError`` where that fails."""
    if name.endswith(".py") or "/" in name or "\\" in name or name.startswith("."):
        path = Path(from_here(name).removesuffix(".py"))
        parts = path.parts
        is_elsewhere = path.is_absolute() or any(part.startswith(".") for part in parts[:-1])
        there = "change to its folder and " if is_elsewhere or parts == ("..",) else ""
        dotted = (parts[-1] if there else ".".join(parts)).lstrip(".") or "say shop.jobs"
        raise MisuseError(
            f"{name!r} is a path; {there}name the module as Python imports it: {dotted}"
        )
    try:
        folder = str(Path.cwd())
    except OSError as error:
        raise MisuseError(f"the current folder cannot be used: {error.strerror}") from None
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        _set_up_django()
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise MisuseError(
                f"there is no module {name!r}: it was looked for in {folder} "
                "and among the installed packages"
            ) from None
        raise MisuseError(_broken(name, error)) from error
    except (Exception, SystemExit) as error:
        raise MisuseError(_broken(name, error)) from error


def _set_up_django() -> None:
    """Load a project's apps, as ``manage.py`` does: its jobs import their models."""
    if os.environ.get("DJANGO_SETTINGS_MODULE") and find_spec("django") is not None:
        import_module("django").setup()


def load_worker(target: str) -> Definition:
    """Return the worker that ``MODULE:WORKER`` names; ``MisuseError`` where there is none.

    It is named by the attribute of the module, or by the name that queues show.
    """
    # The path of a file, which is no module, may have a colon too: on Windows.
    drive, rest = os.path.splitdrive(target) if os.path.isabs(target) else ("", target)
    module_name, colon, path = rest.partition(":")
    if not colon or not module_name or not path:
        raise MisuseError(f"{target!r} names no worker; write MODULE:WORKER, as in app.jobs:close")
    module = load_module(drive + module_name)
    found = module
    for name in path.split("."):
        found = getattr(found, name, None)
    if isinstance(found, Worker):
        return found.definition
    own = {definition.name: definition for definition in defined_in(module_name)}
    if path in own:
        return own[path]
    if found is None:
        known = ", ".join(_names(definition) for definition in own.values())
        there = f"its workers are {known}" if known else "it defines no worker"
        raise MisuseError(f"module {module_name!r} has no {path!r}; {there}")
    raise MisuseError(
        f"{target} is not a worker but of type {type(found).__qualname__}: decorate the function "
        "with @tenant_worker (or @worker)"
    )


def defined_in(module: str) -> Iterator[Definition]:
    """Yield the workers that a module, or a loaded submodule of it, defines."""
    for definition in catalog.definitions():
        home = definition.function.__module__
        if home == module or home.startswith(f"{module}."):
            yield definition


def _names(definition: Definition) -> str:
    """Return the names by which a worker may be given on the command line."""
    attribute, given = definition.function.__qualname__, definition.name
    is_default = given == f"{definition.function.__module__}.{attribute}"
    return attribute if is_default else f"{attribute} ({given})"


def configured_backend(definition: Definition, name: str | None) -> Backend | None:
    """Return the instance that the worker or its module has chosen, under this name if given."""
    settings = config.current
    if name is None:
        return settings.choose(definition.backend, definition.defaults.queue)
    chosen = (definition.backend, settings.backend, *settings.backends.values())
    return next((known for known in chosen if known is not None and known.name == name), None)


def named_backend(name: str) -> Backend:
    """Make the backend of that name; ``MisuseError`` where that is not possible."""
    try:
        return resolve_backend(name)
    except (UnknownBackendError, ImportError, EnqueueError) as error:
        raise MisuseError(str(error)) from None
    except TypeError:
        raise MisuseError(
            f"backend {name!r} wraps an object that only the application has: let the worker's "
            "module call sigra.configure(backend=...) with an instance"
        ) from None
    except Exception as error:
        raise MisuseError(f"backend {name!r} cannot be made: {_told(error)}") from error


def check_options(definition: Definition, backend: Backend) -> None:
    """Refuse, once and before the first line, a backend that lacks what the worker asks for."""
    try:
        check_capabilities(definition.defaults, backend, definition.name)
    except Exception as error:
        raise MisuseError(str(error)) from None


def _broken(name: str, error: BaseException) -> str:
    return f"module {name!r} cannot be imported: {_told(error)}"


def _told(error: BaseException) -> str:
    """Describe an error in one line, with the last place before Sigra's own and the importer's."""
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(_OURS):
            if where:
                break
        elif not frame.filename.startswith(_IMPORTING):
            where = f" ({frame.filename}:{frame.lineno})"
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})" if error.filename else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    told = printable(" ".join(str(text).split()))
    return f"{type(error).__qualname__}: {told}{where}"
