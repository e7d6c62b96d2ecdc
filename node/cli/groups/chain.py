"""``wattprint chain``: the chain itself, and whether it has forked.

Owns the check of a fork's proof; the questions to a node derive from their methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

import click

from ledger.errors import Malformed
from ledger.fields import Json
from node.certificates.format import read_text
from node.cli.fork_text import format_forks
from node.cli.options import FILE, Common, Connected, with_common, with_node
from node.cli.output import show
from node.client import Answer
from node.fork_proof import read_proof, verify_proof
from node.launch import read_genesis_file
from node.queries.forks import show_culprits

FORKS_BYTES_MAX: Final = 32 * 1024 * 1024


@click.group()
def command() -> None:
    """The chain itself: blocks, validators, parameters, the audit of its sums, and forks.

    \b
    Example:
      wattprint chain forks --json > forks.json
      wattprint chain verify-forks forks.json --genesis genesis.json
    """


@command.command()
@with_node
def forks(connected: Connected) -> None:
    """Forks that the node has seen: two final blocks of one height, and who signed both. The proof is in --json."""
    answer: Answer = connected.run(lambda client: client.chain_forks())
    show(connected, answer, format_forks(answer["forks"]))


@command.command("verify-forks")
@click.argument("file", type=FILE)
@click.option("--genesis", type=FILE, required=True, help="The genesis file of the chain: all that is trusted.")
@with_common
def verify_forks(common: Common, *, file: Path, genesis: Path) -> None:
    """Check what `chain forks --json` wrote with nothing but the genesis file: no node, no network.

    Each fork is two blocks of one height that a quorum signed. Exit status 0: all are true; 1: the first that is not
    is refused. The guilty are worked out from the signatures, whatever the file says of them.
    """
    document = read_genesis_file(genesis)
    with file.open("rb") as stream:
        data = read_text(stream.read(FORKS_BYTES_MAX + 1))
    verified: list[dict[str, Json]] = []
    for one in _list_proofs(data):
        proof = read_proof(one)
        culprits = verify_proof(proof, document)
        ids: dict[str, Json] = {
            "our_block_id": proof.ours.compute_block_id().hex(),
            "their_block_id": proof.theirs.compute_block_id().hex(),
        }
        verified.append({"height": proof.ours.header.height, **ids, **cast("dict[str, Json]", show_culprits(culprits))})
    answer: dict[str, Json] = {"verified": True, "chain_id": document.chain_id, "forks": [*verified]}
    show(common, answer, f"true, on the chain {document.chain_id}\n\n{format_forks(verified)}")


def _list_proofs(data: Json) -> list[Json]:
    forks = data.get("forks") if isinstance(data, dict) else None
    if not isinstance(forks, list) or not forks:
        raise Malformed("forks_missing", "expected what `wattprint chain forks --json` writes, with a fork in it")
    return [one.get("proof") if isinstance(one, dict) else None for one in forks]
