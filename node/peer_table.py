"""The peers of a node as ``chain_status`` shows them: who is connected, how it stands, and what passed.

Owns that form only.
"""

from __future__ import annotations

from collections.abc import Mapping

from node.service import Passed, PeerStatus
from p2p.network import Network
from p2p.session import Traffic


def describe_peers(network: Network) -> list[PeerStatus]:
    """One row for each connected peer, by key."""
    standings = {standing.public_key: standing for standing in network.standings()}
    return [
        {
            "public_key": peer.public_key.hex(),
            "moniker": peer.moniker,
            "host": peer.host,
            "connected_ms": peer.connected_ms,
            "score": standings[peer.public_key].score,
            "bans": standings[peer.public_key].bans,
            "last_misbehaviour": standings[peer.public_key].last_misbehaviour,
            "used_ms": peer.used_ms,
            "paused_ms": peer.paused_ms,
            "received": _describe_traffic(peer.received),
            "sent": _describe_traffic(peer.sent),
            "waiting": {queue.name.lower(): count for queue, count in peer.waiting.items()},
            "dropped": {queue.name.lower(): count for queue, count in peer.dropped.items()},
        }
        for peer in network.peers()
    ]


def _describe_traffic(rows: Mapping[str, Traffic]) -> dict[str, Passed]:
    return {name: {"messages": row.count, "bytes": row.size_bytes} for name, row in rows.items()}
