"""The model's sites and meters: what they are and were, whose key speaks, and when a meter is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.properties.model import Credits, Reasons, gather

LENGTHS_S: Final = {60, 300, 600, 900, 1_800, 3_600}
FOR_EVER: Final = 2**62
Shares = tuple[tuple[bytes, int], ...]


@dataclass(frozen=True)
class Looks:
    """What an amendment can change of a site."""

    zone: str
    capacity_w: int
    label: str
    design: bytes | None
    efficiency: int


@dataclass(eq=False)
class Site:
    """A site through time: ``looks`` are from a date on, the first from the beginning."""

    owner: bytes
    utility: bytes
    technology: str
    commissioned_ms: int
    looks: list[tuple[int, Looks]]
    shares: Shares
    id: bytes = b""

    @property
    def now(self) -> Looks:
        return self.looks[-1][1]

    def at(self, time_ms: int) -> Looks:
        found = self.looks[0][1]
        for since_ms, looks in self.looks:
            if since_ms <= time_ms:
                found = looks
        return found


@dataclass(eq=False)
class Meter:
    """``silent``: stretches in which nothing that it measured counts. ``keys``: from a date on."""

    id: bytes
    site: Site
    utility: bytes
    channels: dict[str, tuple[int, int]]  # channel → capacity in W, interval in s
    commissioned_ms: int
    keys: list[tuple[int, bytes]]
    status: str = "active"
    since_ms: int = 0
    silent: list[tuple[int, int]] = field(default_factory=list)
    last_end_ms: int = 0

    def key_at(self, time_ms: int) -> bytes:
        return [key for since_ms, key in self.keys if since_ms <= time_ms][-1]


@dataclass(eq=False)
class Places(Credits):
    """Sites and meters."""

    sites: list[Site] = field(default_factory=list)
    meters: list[Meter] = field(default_factory=list)
    meter_keys: set[bytes] = field(default_factory=set)

    def register_site(
        self, sender: bytes, cosigners: Sequence[bytes], owner: bytes, technology: str, *, looks: Looks, since_ms: int
    ) -> Reasons:
        reasons = self.may_sign("site.register", sender, cosigners)
        reasons |= gather((owner not in (sender, *cosigners), "owner_countersignature_missing"))
        if not reasons:
            self.sites.append(Site(owner, sender, technology, since_ms, [(since_ms, looks)], ((owner, 1),)))
        return reasons

    def _changes_site(self, tag: str, site: Site, sender: bytes, cosigners: Sequence[bytes]) -> Reasons:
        return self.may_sign(tag, sender, cosigners) | gather(
            (site.utility != sender, "site_of_another_utility"),
            (site.owner not in (sender, *cosigners), "owner_countersignature_missing"),
        )

    def amend_site(
        self,
        sender: bytes,
        cosigners: Sequence[bytes],
        site: Site,
        from_ms: int,
        after: Looks,
        *,
        sets_efficiency: bool,
    ) -> Reasons:
        reasons = self._changes_site("site.amend", site, sender, cosigners)
        here = [meter for meter in self.meters if meter.site is site]
        largest_w = max((meter.channels.get("production", (0, 0))[0] for meter in here), default=0)
        reasons |= gather(
            (sets_efficiency and site.technology != "storage", "site_is_no_storage"),
            (after == site.now, "amendment_changes_nothing"),
            (from_ms <= site.looks[-1][0], "amendment_before_the_last"),
            (any(from_ms < meter.last_end_ms for meter in here), "amendment_before_last_reading"),
            (largest_w > after.capacity_w, "channel_capacity_above_site"),
        )
        if not reasons:
            site.looks.append((from_ms, after))
        return reasons

    def set_shares(self, sender: bytes, cosigners: Sequence[bytes], site: Site, shares: Shares) -> Reasons:
        reasons = self._changes_site("site.set_shares", site, sender, cosigners)
        before_sum, after_sum = (sum(weight for _, weight in some) for some in (site.shares, shares))
        after = dict(shares)
        for holder, weight in shares:
            is_fit = holder == site.owner or self.has_role(holder, "investor", "institution")
            reasons |= self.may_be_given(holder)
            reasons |= gather((weight < 1, "share_weight_is_nothing"), (not is_fit, "shareholder_role_missing"))
        for holder, weight in site.shares:
            is_less = after.get(holder, 0) * before_sum < weight * after_sum
            if is_less and holder not in (sender, *cosigners):
                reasons.add("shareholder_countersignature_missing")
        reasons |= gather(
            (len(after) != len(shares), "shareholder_named_twice"),
            (shares == site.shares, "amendment_changes_nothing"),
        )
        if not reasons:
            site.shares = shares
        return reasons

    def register_meter(
        self,
        sender: bytes,
        cosigners: Sequence[bytes],
        site: Site,
        *,
        meter_id: bytes,
        key: bytes,
        channels: Sequence[tuple[str, int, int]],
        since_ms: int,
    ) -> Reasons:
        reasons = self._changes_site("meter.register", site, sender, cosigners) | gather(
            (meter_id in {meter.id for meter in self.meters}, "meter_already_registered"),
            (key in self.meter_keys, "meter_key_already_used"),
            (since_ms < site.commissioned_ms, "meter_commissioned_before_site"),
            (len({name for name, _, _ in channels}) != len(channels), "channel_named_twice"),
            (any(length_s not in LENGTHS_S for _, _, length_s in channels), "interval_length_not_allowed"),
        )
        for name, capacity_w, _ in channels:
            if name == "production":
                reasons |= gather(
                    (site.technology == "load", "load_cannot_produce"),
                    (capacity_w > site.now.capacity_w, "channel_capacity_above_site"),
                )
        if not reasons:
            specs = {name: (capacity_w, length_s) for name, capacity_w, length_s in channels}
            self.meters.append(Meter(meter_id, site, sender, specs, since_ms, [(since_ms, key)], since_ms=since_ms))
            self.meter_keys.add(key)
        return reasons

    def _changes_meter(self, tag: str, sender: bytes, cosigners: Sequence[bytes], meter: Meter, *of: str) -> Reasons:
        return self.may_sign(tag, sender, cosigners) | gather(
            (meter.utility != sender, "meter_of_another_utility"),
            (meter.status not in of, "meter_not_open_to_this"),
        )

    def _dates_meter(self, meter: Meter, from_ms: int, since_ms: int) -> Reasons:
        return gather(
            (from_ms <= since_ms, "meter_change_before_the_last"),
            (from_ms > self.now_ms, "meter_change_in_the_future"),
            (from_ms < meter.last_end_ms, "meter_change_before_last_reading"),
        )

    def suspend(self, sender: bytes, meter: Meter, from_ms: int) -> Reasons:
        reasons = self._changes_meter("meter.suspend", sender, (), meter, "active")
        reasons |= self._dates_meter(meter, from_ms, meter.since_ms)
        if not reasons:
            meter.status, meter.since_ms = "suspended", from_ms
            meter.silent.append((from_ms, FOR_EVER))
        return reasons

    def resume(self, sender: bytes, meter: Meter, from_ms: int) -> Reasons:
        reasons = self._changes_meter("meter.resume", sender, (), meter, "suspended")
        reasons |= self._dates_meter(meter, from_ms, meter.since_ms)
        if not reasons:
            meter.status, meter.since_ms = "active", from_ms
            meter.silent[-1] = (meter.silent[-1][0], from_ms)
        return reasons

    def retire(self, sender: bytes, meter: Meter) -> Reasons:
        reasons = self._changes_meter("meter.retire", sender, (), meter, "suspended")
        if not reasons:
            meter.status = "retired"
        return reasons

    def rotate_meter_key(
        self, sender: bytes, cosigners: Sequence[bytes], meter: Meter, key: bytes, from_ms: int
    ) -> Reasons:
        reasons = self._changes_meter("meter.rotate_key", sender, cosigners, meter, "active", "suspended")
        reasons |= self._dates_meter(meter, from_ms, meter.keys[-1][0])
        reasons |= gather(
            (meter.site.owner not in (sender, *cosigners), "owner_countersignature_missing"),
            (key in self.meter_keys, "meter_key_already_used"),
        )
        if not reasons:
            meter.keys.append((from_ms, key))
            self.meter_keys.add(key)
        return reasons
