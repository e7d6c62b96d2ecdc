"""Who may vote at a height: an ordered set of authorities, one vote each.

The set arrives with each height, so that a later change of members needs no change here.
Quorum = n − f with f = ⌊(n−1)/3⌋; the proposer is validators[(height + round) mod n].
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.codec import VALIDATORS_MAX
from ledger.authorities import compute_quorum, compute_validators_hash
from ledger.primitives import Hash, Height, PublicKey


@dataclass(frozen=True, slots=True)
class Validator:
    """One authority: the key that signs its votes, and its name among people."""

    public_key: PublicKey
    moniker: str


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The authorities of a height, in the order that decides who proposes."""

    members: tuple[Validator, ...]
    f: int = field(init=False, compare=False)  # how many may be faulty
    quorum: int = field(init=False, compare=False)
    _index_by_key: dict[PublicKey, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        assert 0 < len(self.members) <= VALIDATORS_MAX
        index_by_key = {member.public_key: index for index, member in enumerate(self.members)}
        assert len(index_by_key) == len(self.members), "two validators with one key"
        object.__setattr__(self, "_index_by_key", index_by_key)
        object.__setattr__(self, "f", compute_faulty_max(len(self.members)))
        object.__setattr__(self, "quorum", compute_quorum(len(self.members)))

    def __len__(self) -> int:
        return len(self.members)

    def find_index(self, public_key: PublicKey) -> int | None:
        """The position of a key, or None for a stranger."""
        return self._index_by_key.get(public_key)

    def get_proposer(self, height: Height, round_: int) -> Validator:
        """Whose turn it is to propose."""
        return self.members[(height + round_) % len(self.members)]

    def compute_hash(self) -> Hash:
        """The hash of the set that stands in headers."""
        return compute_validators_hash((member.public_key, member.moniker) for member in self.members)


def compute_faulty_max(count: int) -> int:
    """How many of ``count`` validators may be faulty: ⌊(n−1)/3⌋."""
    return (count - 1) // 3
