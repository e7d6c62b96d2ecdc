"""Measures a local network of real processes over JSON-RPC: what is counted has been committed by every validator."""
