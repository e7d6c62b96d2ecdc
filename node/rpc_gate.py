"""Who may ask this node for what: rates for each address, tokens, and the pages of other origins.

Owns the decisions, not the sockets: addresses, headers and the time arrive as arguments. Everything is off by default
but the rate of other machines, since a node listens on its own machine only unless it is told otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

from node.jsonrpc import BATCH_MAX, NOT_PERMITTED, OVERLOADED, Fault, make_fault
from p2p.budgets import TokenBuckets

ADDRESSES_MAX: Final = 10_000  # whose rate is remembered
BURST_SECONDS: Final = 5  # of the rate, at once
PREFIX_BITS: Final = 64  # an IPv6 client has at least so much of its address for itself
PREFLIGHT_SECONDS: Final = 600
SUBMISSIONS: Final = frozenset({"tx_submit", "tx_submit_many"})
BEARER: Final = "bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What the operator decides. A rate of 0 is no limit."""

    requests_per_second: int = 100  # of one address; each request of a batch counts
    loopback_requests_per_second: int = 0
    token_hashes: frozenset[str] = frozenset()  # SHA-256 of each token, hex; empty: nobody needs one
    reads_need_token: bool = False  # submissions always do, if there are tokens
    origins: frozenset[str] = frozenset()  # of pages elsewhere that may ask, such as https://example.org


DEFAULT_GATE: Final = GateSettings()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, as far as it matters."""

    address: str
    has_token: bool


class Gate:
    """The decisions of one server."""

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._far = _make_buckets(settings.requests_per_second)
        self._near = _make_buckets(settings.loopback_requests_per_second)

    @property
    def reads_need_token(self) -> bool:
        """Whether somebody without a token is told nothing."""
        return self._settings.reads_need_token and bool(self._settings.token_hashes)

    def identify(self, address: str | None, authorization: str | None) -> Visitor:
        """The visitor at an address with an ``Authorization`` header."""
        if not self._settings.token_hashes or authorization is None:
            return Visitor(_shorten(address or ""), has_token=False)
        scheme, _, token = authorization.partition(" ")
        # A look-up by hash: how long it takes tells nothing about a token.
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        return Visitor(_shorten(address or ""), scheme.lower() == BEARER and digest in self._settings.token_hashes)

    def is_within_rate(self, visitor: Visitor, now_ms: int, requests: int = 1) -> bool:
        """Whether so many more requests are within the rate of an address; if so, they are counted."""
        buckets = self._near if _is_loopback(visitor.address) else self._far
        return buckets is None or buckets.take(visitor.address, now_ms, requests)

    def check_method(self, visitor: Visitor, method: str) -> None:
        """Raises ``Fault`` (``token_required``) when a call needs a token that the visitor has not shown."""
        if self._settings.token_hashes and not visitor.has_token and (self.reads_need_token or method in SUBMISSIONS):
            raise make_fault(NOT_PERMITTED, "token_required", f"{method}: send Authorization: Bearer TOKEN")

    def is_origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """Whether a request comes from no page, from a page of this node, or from one that the operator named."""
        return origin is None or origin in self._settings.origins or is_same_origin(origin, host)

    def make_origin_headers(self, origin: str | None) -> Mapping[str, str]:
        """What lets the page of a named origin read an answer; nothing for anybody else."""
        if origin is None or origin not in self._settings.origins:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def make_preflight_headers(self, origin: str | None) -> Mapping[str, str]:
        """The answer to a browser that asks first; empty for an origin that nobody named."""
        headers = self.make_origin_headers(origin)
        if not headers:
            return {}
        return {
            **headers,
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }


def make_rate_fault() -> Fault:
    """The refusal of a request beyond the rate."""
    return make_fault(OVERLOADED, "request_rate_exceeded", "slow down, or ask the operator for a higher rate")


def is_same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from no page, or from a page of this node: others do not read or write here.

    A name that its owner points at this machine is no name of ours: only addresses, and ``localhost``, are.
    """
    if origin is None:
        return True
    if origin.partition("://")[2] != host:
        return False
    try:
        name = URL(origin).host or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches a server that listens on ``host``."""
    return host == "localhost" or _is_loopback(host)


def _make_buckets(per_second: int) -> TokenBuckets | None:
    if per_second == 0:
        return None
    return TokenBuckets(per_second=per_second, burst=max(BURST_SECONDS * per_second, BATCH_MAX), keys_max=ADDRESSES_MAX)


@lru_cache(ADDRESSES_MAX)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


@lru_cache(ADDRESSES_MAX)
def _shorten(address: str) -> str:
    """The part of an address that tells clients apart; an IPv4 address in its IPv6 form becomes itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, PREFIX_BITS), strict=False).network_address)
