"""The backends that Sigra ships: one module a queue, each on its own."""
