"""Peers: who they are, what they may say, and how bytes become messages."""
