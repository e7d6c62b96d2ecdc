"""``wattprint meter``: metering points, and a meter that plays a file.

Owns the group; ``simulate`` is cli/meter_tools.py's, everything else derives from transactions and questions.
"""

from __future__ import annotations

import click

from node.cli.meter_tools import simulate


@click.group()
def command() -> None:
    """Meters: register them, rotate their keys, suspend and retire them; play one.

    \b
    Example:
      wattprint meter show 5f0c…
      wattprint meter simulate june.csv --meter 5f0c… --meter-key meter-7.key.json --speed 900 --key oracle.key.json
    """


command.add_command(simulate)
