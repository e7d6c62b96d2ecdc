"""A report of forks as text for a person: what was decided twice, who showed it, and who signed both.

Owns the words. The proof itself is for programs, and only in the JSON.
"""

from __future__ import annotations

from typing import Any, Final

from node.cli.output import format_time

NONE: Final = "No fork was seen."
_WHERE: Final = {
    True: ": the chains part here",
    False: ": the chains part further down, where it could not be seen",
    None: "",
}


def format_forks(forks: list[dict[str, Any]]) -> str:
    """The entries of ``chain_forks``, or of what was verified of them."""
    return "\n\n".join(map(_format, forks)) if forks else NONE


def _format(fork: dict[str, Any]) -> str:
    where = _WHERE[fork.get("is_first")]
    lines = [f"height {fork['height']} was decided twice{where}", f"  ours    {fork['our_block_id']}"]
    lines.append(f"  theirs  {fork['their_block_id']}")
    if "peer" in fork:
        lines.append(f"  shown by {fork['peer']}, {format_time(fork['seen_ms'])}")
    lines += [f"  guilty: {_name(one)}, signed both in one round" for one in fork["guilty"]]
    lines += [f"  suspect: {_name(one)}, signed both in two rounds, as an honest one may" for one in fork["suspects"]]
    return "\n".join(lines)


def _name(member: dict[str, Any]) -> str:
    return f"{member['moniker']} ({member['public_key']})"
