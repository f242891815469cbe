"""``sigra check``: follow workers' scopes through Python source, of which nothing is run."""
