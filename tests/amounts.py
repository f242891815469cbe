"""How many cases a test tries: many, few in ``make test-fast``, or what takes hours."""

import os

LONG = "SIGRA_LONG" in os.environ
MANY = LONG or "SIGRA_FEW" not in os.environ
