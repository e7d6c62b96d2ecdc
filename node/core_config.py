"""What a core is born with."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.parameters import ConsensusParameters
from consensus.signer import SignFunction
from consensus.watchfulness import Watchfulness
from ledger.primitives import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """With ``own_key`` and ``sign`` a core votes at the heights where its key is in the set."""

    own_key: PublicKey | None
    sign: SignFunction | None
    consensus: ConsensusParameters
    mempool_transactions_max: int = 10_000
    mempool_bytes_max: int = 16 * 1024 * 1024
    watch: Watchfulness | None = None  # for a key whose record is missing or old
