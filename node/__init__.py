"""One node: a pure core and the thin shell that lets it touch the world."""
