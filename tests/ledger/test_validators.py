"""What the end of a block may change: the set that decides the next one, and the version of its rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.errors import Rejected
from ledger.execution import execute_block
from ledger.state import State
from ledger.transaction import BlockEnd
from ledger.validators import (
    PROTOCOL,
    VALIDATORS,
    Member,
    ProtocolVersion,
    ValidatorRecord,
    find_validators_at,
    set_validators,
)
from tests.ledger.toy import ALICE, PROPOSER, TABLE, Later, Noted, ToyChain, WriteNote, change_header, write_tx


def finish(state: State, end: BlockEnd) -> None:
    """Alice joins for height 3; version 2 is in force from height 4 on."""
    if end.block.height == 2:
        members = (Member(PROPOSER.public_key, "one"), Member(ALICE.public_key, "two"))
        set_validators(state, ValidatorRecord(members), from_height=3)
    if end.block.height == 3:
        PROTOCOL.put(state, value=ProtocolVersion(2))


CHANGING = replace(TABLE, finish_block=finish, version_max=2)


def test_the_header_before_announces_the_next_set() -> None:
    toy = ToyChain(table=CHANGING)
    headers = [toy.parent]
    for _ in range(3):
        toy.commit(toy.build()[0])
        headers.append(toy.parent)
    assert [header.validators_hash == headers[0].validators_hash for header in headers] == [True, True, True, False]
    assert [header.next_validators_hash == header.validators_hash for header in headers] == [True, True, False, True]
    assert headers[2].next_validators_hash == VALIDATORS.get(toy.state).compute_hash()
    sizes = [len(record.members) for h in range(5) if (record := find_validators_at(toy.state, h)) is not None]
    assert sizes == [1, 1, 1, 2, 2]


def test_a_voter_refuses_a_header_that_announces_another_set() -> None:
    toy = ToyChain(table=CHANGING)
    toy.commit(toy.build()[0])
    executed, _ = toy.build()
    silent = change_header(executed.block.header, next_validators_hash=toy.parent.next_validators_hash)
    with pytest.raises(Rejected, match="block_roots_wrong: next_validators_hash"):
        execute_block(toy.chain, replace(executed.block, header=silent), executed.body, find_known=lambda _: None)


def test_a_transaction_type_is_active_from_its_version_on() -> None:
    toy = ToyChain(table=CHANGING)
    for _ in range(3):
        executed, dropped = toy.build(write_tx(Later()))
        assert [one.error.reason for one in dropped] == ["transaction_type_not_active"]
        toy.commit(executed)
    executed, dropped = toy.build(write_tx(Later()), write_tx(WriteNote("first", 1)))
    assert dropped == ()
    assert executed.block.header.version == 2
    assert executed.receipts[0].events == (Noted("later", 2),)


def test_a_block_of_another_version_than_the_one_in_force_is_refused() -> None:
    toy = ToyChain(table=CHANGING)
    executed, _ = toy.build()
    early = change_header(executed.block.header, version=2)
    with pytest.raises(Rejected, match="block_version_wrong"):
        execute_block(toy.chain, replace(executed.block, header=early), executed.body, find_known=lambda _: None)


def test_a_program_without_the_rules_of_a_version_neither_builds_nor_accepts_its_blocks() -> None:
    toy = ToyChain(table=CHANGING)
    for _ in range(3):
        toy.commit(toy.build()[0])
    executed, _ = toy.build()
    toy.table = replace(CHANGING, version_max=1)
    with pytest.raises(Rejected, match="protocol_version_not_supported"):
        toy.build()
    with pytest.raises(Rejected, match="protocol_version_not_supported"):
        execute_block(toy.chain, executed.block, executed.body, find_known=lambda _: None)
