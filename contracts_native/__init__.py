"""What the ledger enforces, one file per family of transactions; `table.py` puts them together."""
