"""A page to look at the audit store: read-only, on this machine, for the holder of the token.

Needs the extra ``web``.
"""

from sigra.errors import MissingExtraError

try:
    from sigra.web.app import make_app
except ModuleNotFoundError as error:
    raise MissingExtraError("web", error.name or "starlette") from error

__all__ = ["make_app"]
