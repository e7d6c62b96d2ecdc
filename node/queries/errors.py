"""What a question can be refused for beyond its form: the thing it names is not there.

Owns ``NotFound``, which JSON-RPC answers with its own code. Reasons name the kind: ``site_not_found``.
"""

from __future__ import annotations

from ledger.errors import Rejected


class NotFound(Rejected):
    """The question is well formed, and names something that this chain does not have."""
