"""``sigra run``: run a worker once for each line of a file."""
