"""The address book: which peers to dial and when, how they behaved, and who is banned until when.

Pure: the time arrives as an argument and the jitter from a Random that the caller seeds. Standing is kept by proven
key, never by host: several nodes may share an address, and an unproven connection must not harm a peer's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from ledger.primitives import PublicKey
from p2p.budgets import DEFAULT_LIMITS, PeerLimits

BACKOFF_MS_BASE: Final = 250
BACKOFF_MS_MAX: Final = 10_000
STABLE_CONNECTION_MS: Final = 10_000  # a connection that lasted this long ends the series of failures
BAN_SCORE: Final = -100
SCORE_REGAIN_MS: Final = 10_000  # one point back for each ten quiet seconds
# Breaches of the wire protocol cannot happen by bad luck between honest nodes: one is enough for a ban.
PROTOCOL_BREACHES: Final = frozenset(
    {
        "message_malformed",
        "message_unknown",
        "message_too_large",
        "message_rate_exceeded",
        "handshake_out_of_order",
    }
)


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a known peer listens, and the key it must prove there."""

    public_key: PublicKey
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PeerStanding:
    """What the book knows of one peer, for people and metrics. ``address`` is None for one that only dials us."""

    public_key: PublicKey
    address: PeerAddress | None
    is_connected: bool
    dial_failures: int
    next_dial_ms: int
    score: int
    last_misbehaviour: str
    bans: int
    banned_until_ms: int  # 0: never banned
    is_banned: bool


@dataclass(slots=True)
class _Entry:
    address: PeerAddress | None
    is_dialling: bool = False
    is_connected: bool = False
    connected_ms: int = 0
    dial_failures: int = 0
    next_dial_ms: int = 0
    score: int = 0
    scored_ms: int = 0
    last_misbehaviour: str = ""
    bans: int = 0
    banned_until_ms: int = 0


def is_newcomer_kept(
    *, own_key: PublicKey, peer_key: PublicKey, is_existing_dialled_by_us: bool, is_newcomer_dialled_by_us: bool
) -> bool:
    """Of two connections between one pair, whether the newer stays.

    When each side dialled one, the connection dialled by the lower key stays: both sides decide alike. When one side
    dialled both, it has given up the older.
    """
    if is_existing_dialled_by_us == is_newcomer_dialled_by_us:
        return True
    return is_newcomer_dialled_by_us == (own_key < peer_key)


class PeerBook:
    """Entries by public key. Only configured peers and peers that proved an allowed key enter, which bounds it."""

    def __init__(
        self,
        own_key: PublicKey,
        addresses: Sequence[PeerAddress],
        random: Random,
        limits: PeerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._random = random
        self._entries = {address.public_key: _Entry(address) for address in addresses if address.public_key != own_key}

    def list_due(self, now_ms: int) -> list[PeerAddress]:
        """The peers to dial now: neither connected, being dialled, waiting, nor banned."""
        return [entry.address for entry in self._dialable() if entry.address and _compute_due_ms(entry) <= now_ms]

    def find_next_due_ms(self) -> int | None:
        """When the next peer falls due; None when there is nobody to dial."""
        return min((_compute_due_ms(entry) for entry in self._dialable()), default=None)

    def note_dialling(self, key: PublicKey) -> None:
        self._entries[key].is_dialling = True

    def note_dial_ended(self, key: PublicKey, now_ms: int) -> None:
        """A dial is over. If it left no connection, the next waits longer, with jitter, for ever."""
        entry = self._entries[key]
        entry.is_dialling = False
        if not entry.is_connected and entry.next_dial_ms <= now_ms:
            self._back_off(entry, now_ms)

    def note_connected(self, key: PublicKey, now_ms: int) -> None:
        entry = self._entries.setdefault(key, _Entry(None))
        entry.is_connected, entry.connected_ms = True, now_ms

    def note_disconnected(self, key: PublicKey, now_ms: int) -> None:
        """A proven connection ended; one that had lasted is redialled soon, a short one after a longer wait."""
        entry = self._entries[key]
        entry.is_connected = False
        if now_ms - entry.connected_ms >= STABLE_CONNECTION_MS:
            entry.dial_failures = 0
        self._back_off(entry, now_ms)

    def penalise(self, key: PublicKey, reason: str, now_ms: int) -> bool:
        """Lower a proven peer's score; True when that bans it. Each ban lasts twice as long as the one before."""
        entry = self._entries.setdefault(key, _Entry(None))
        entry.score = _compute_score(entry, now_ms) + (
            BAN_SCORE if reason in PROTOCOL_BREACHES else BAN_SCORE // self._limits.faults_before_ban
        )
        entry.scored_ms = now_ms
        entry.last_misbehaviour = reason
        if entry.score > BAN_SCORE:
            return False
        entry.banned_until_ms = now_ms + min(self._limits.ban_ms << min(entry.bans, 10), self._limits.ban_ms_max)
        entry.bans += 1
        entry.score = 0
        return True

    def is_banned(self, key: PublicKey, now_ms: int) -> bool:
        entry = self._entries.get(key)
        return entry is not None and now_ms < entry.banned_until_ms

    def list_standings(self, now_ms: int) -> list[PeerStanding]:
        """Every peer known, by key."""
        return [
            PeerStanding(
                public_key=key,
                address=entry.address,
                is_connected=entry.is_connected,
                dial_failures=entry.dial_failures,
                next_dial_ms=_compute_due_ms(entry),
                score=_compute_score(entry, now_ms),
                last_misbehaviour=entry.last_misbehaviour,
                bans=entry.bans,
                banned_until_ms=entry.banned_until_ms,
                is_banned=now_ms < entry.banned_until_ms,
            )
            for key, entry in sorted(self._entries.items())
        ]

    def _dialable(self) -> list[_Entry]:
        return [
            entry
            for entry in self._entries.values()
            if entry.address is not None and not entry.is_connected and not entry.is_dialling
        ]

    def _back_off(self, entry: _Entry, now_ms: int) -> None:
        wait_ms = min(BACKOFF_MS_BASE << min(entry.dial_failures, 10), BACKOFF_MS_MAX)
        entry.dial_failures += 1
        entry.next_dial_ms = now_ms + self._random.randrange(wait_ms // 2, wait_ms + 1)


def _compute_due_ms(entry: _Entry) -> int:
    return max(entry.next_dial_ms, entry.banned_until_ms)


def _compute_score(entry: _Entry, now_ms: int) -> int:
    return min(0, entry.score + max(0, now_ms - entry.scored_ms) // SCORE_REGAIN_MS)
