"""Meters that sign: one that plays a file, and a relay between a customer port and the ledger."""
