"""A page to look at the audit store: read-only, on this machine, for whoever has the token."""

from sigra.web.app import make_app

__all__ = ["make_app"]
