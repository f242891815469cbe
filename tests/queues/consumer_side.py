"""What every consumer's app module imports before its backend: the suite's workers, recorded.

``note`` is the body of a task of the application's own, which Sigra knows nothing of.
"""

from __future__ import annotations

import os

if os.environ.get("SIGRA_TEST_OLDER"):
    import older_release

    older_release.be_older()

from sigra.testing.contract_workers import record_events  # noqa: E402

if os.environ.get("SIGRA_TEST_CONSUMER"):
    record_events()

URL = os.environ.get("SIGRA_TEST_URL", "")
QUEUE = os.environ.get("SIGRA_TEST_QUEUE", "")


def note(text: str) -> None:
    """Append a line to the file that the test reads."""
    with open(os.environ["SIGRA_TEST_NOTES"], "a") as notes:
        notes.write(f"{text}\n")
