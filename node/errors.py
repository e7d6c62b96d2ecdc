"""What can be wrong with a node's own machine: its disk, its keys, its configuration.

    LocalError(reason, item)
    ├── StoreError       node/leveldb_store.py: the database cannot be opened or written
    ├── JournalError     node/journal.py: the journal cannot be written; JournalCorrupt: it cannot be believed
    ├── KeystoreError    node/keystore.py: a key file is missing, damaged, or locked by another passphrase
    └── ConfigError      node/config.py: the configuration file is wrong

A stranger's mistake is ``Rejected`` (ledger/errors.py); these are the operator's, shown as one line, exit status 2.
"""

from __future__ import annotations

import errno
from typing import Final

DISK_REASONS: Final = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EACCES: "permission_missing",
    errno.EPERM: "permission_missing",
    errno.EROFS: "permission_missing",
}


class LocalError(Exception):
    """A fault of this machine. ``reason`` is a stable snake_case sentence, ``item`` names the file or key at fault."""

    def __init__(self, reason: str, item: object = "") -> None:
        self.reason = reason
        self.item = str(item)
        super().__init__(f"{reason}: {self.item}" if self.item else reason)


def get_disk_reason(error: OSError, *, otherwise: str) -> str:
    """What an operating system's error stands for: ``disk_full``, ``permission_missing``, or ``otherwise``."""
    return DISK_REASONS.get(error.errno or 0, otherwise)
