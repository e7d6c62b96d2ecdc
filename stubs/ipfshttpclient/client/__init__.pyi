"""The part of ipfshttpclient 0.7.0 that wraps answers."""
