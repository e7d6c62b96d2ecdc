"""Questions about what is committed: pure functions from a view of the chain to JSON."""
