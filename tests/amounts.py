"""How many cases a test tries: few, many as CI does, or what takes hours."""

import os

LONG = "SIGRA_LONG" in os.environ
MANY = LONG or "SIGRA_EXAMPLES" in os.environ
