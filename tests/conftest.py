"""What holds for every test: those against real queues run by ``make test-queues`` alone."""

import os

collect_ignore = [] if os.environ.get("SIGRA_QUEUES") else ["queues"]
