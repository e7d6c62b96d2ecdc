"""Meter files: what utilities and meters really write, as channels of whole watt-hours.

Owns one reader per format, and what is made of what they read: a dry run's summary, and stretches for signed reports.
Only ``opening.py`` touches the world; a reader is a function of bytes.
"""
