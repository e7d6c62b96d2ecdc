"""Certificates of provenance: made from a node's store, checked with the genesis file alone, printed for a wall."""
