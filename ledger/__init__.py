"""The pure core: what a transaction, a block and a state are, and how one follows from the other."""
