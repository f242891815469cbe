"""An app like any other: a model, its jobs, and a command."""
