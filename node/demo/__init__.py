"""The demo: four validators settle a week of real meter data, and prove it. ``run`` plays it; see ``story.py``."""

from __future__ import annotations

from node.demo.story import DemoOptions, run

__all__ = ["DemoOptions", "run"]
