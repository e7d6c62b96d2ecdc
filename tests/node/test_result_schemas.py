"""What the OpenRPC document says of results is what a node answers: no field is missing there, and none here."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

import fastjsonschema
import orjson
import pytest

from contracts_native.sites import RegisterSite, Technology
from contracts_native.slices import SliceStatus
from contracts_native.table import load_table
from ledger.block import compute_block_id
from ledger.errors import NotAdmitted
from ledger.fields import Json
from ledger.primitives import Hash, PublicKey, format_address
from ledger.storage import MemoryStore
from node import chain_store
from node.chain_store import get_header
from node.client_forms import sign_payload
from node.forks import Fork, compute_fork_changes, make_final_header
from node.jsonrpc import dump
from node.openrpc import make_document
from node.peer_table import describe_peers
from node.queries.lot_ids import format_lot_id
from node.rpc_methods import METHODS
from p2p.connection import PeerInfo
from p2p.messages import QueueClass
from p2p.network import Network
from p2p.peers import PeerStanding
from p2p.session import Traffic
from tests.contracts_native import harness
from tests.contracts_native.harness import DAY_0_MS
from tests.node.certificate_chain import CertifiedChain, make_market
from tests.node.fake_service import (
    ALICE,
    CHAIN_ID,
    GENESIS_MS,
    UTILITY,
    FakeService,
    make_issue,
    make_transfer,
    sign_fake,
)
from tests.node.full_chain import LATE_MS, list_claims_in_force, make_full_chain
from tests.node.json_schemas import Description, Schema

ON_SOCKETS: Final = {"subscribe", "unsubscribe"}  # answered there alone: tests/integration/test_rpc_schemas.py
NEVER_SEEN: Final = {
    "AuditSum.faults[]": "the chain is sound",
    "Change.protocol_version|0": "there is one version to this day",
    "TransactionProof.certificate|1": "only genesis has no certificate, and it has no transactions",
}
Answers = defaultdict[str, list[Any]]  # by method, as they are sent


class Asker:
    """Asks as JSON-RPC does, and keeps the answers as they are sent."""

    def __init__(self, service: FakeService, answers: Answers) -> None:
        self.service = service
        self.answers = answers

    def ask(self, name: str, **params: Json) -> Any:
        method = METHODS[name]
        result = method.handle(self.service, **method.bind(params))
        if method.is_waiting:
            result = asyncio.run(_wait(cast("Awaitable[object]", result)))
        answer: Json = orjson.loads(dump(result))
        self.answers[name].append(answer)
        return answer

    def list_ids(self, family: str, at: str = "", *, items: str = "") -> list[Json]:
        """The ids in a list, of which the first page has one item."""
        first = self.ask(f"{family}_list", limit=1)
        items = items or f"{family}s"
        assert len(first[items]) == 1
        assert first["next_cursor"] is not None, family
        return [one[at or family] for one in self.ask(f"{family}_list", limit=1_000)[items]]


async def _wait(coroutine: Awaitable[object]) -> object:
    return await coroutine


def ask_everything(answers: Answers) -> None:
    """Every question about the chain that has an answer."""
    story = make_full_chain()
    service = FakeService()
    service.store = story.chain.store
    service.peers = tuple(describe_peers(make_network()))
    asker = Asker(service, answers)
    ask = asker.ask
    for height in (0, story.chain.height):
        for name in ("chain_block", "chain_validators", "chain_parameters"):
            ask(name, height=height)
    for name in ("chain_status", "chain_audit", "rpc.discover"):
        ask(name)
    for limit in (1, 2):
        ask("governance_offences", limit=limit)
    for family in ("participant", "site", "meter", "lot", "claim", "offer", "escrow", "bill", "document"):
        for one in asker.list_ids(family):
            ask(f"{family}_get", **{family: one})
    for proposal in asker.list_ids("governance", "proposal", items="proposals"):
        ask("governance_get", proposal=proposal)
    asker.list_ids("redemption")
    asker.list_ids("movement", "tx_id")
    ask_of_sources(asker)
    for holder in [one["participant"] for one in asker.answers["participant_list"][1]["participants"]]:
        ask_of_holder(asker, holder)
    alice, bob, utility = (format_address(one.address) for one in (harness.ALICE, harness.BOB, harness.UTILITY))
    ask("bill_dues", consumer=bob, utility=utility)
    ask("participant_encryption_key", participant=utility)
    for claim in list_claims_in_force(story.chain):
        ask("certificate_get", claim=claim.hex())
    for holder in (bob, alice):
        ask("certificate_get", holder=holder, from_ms=LATE_MS)
    ask_of_transactions(asker, story.chain)


def ask_the_market(answers: Answers) -> None:
    """What is certified there, and where it came from: through a correction, and through a battery."""
    market = make_market()
    service = FakeService()
    service.store = market.chain.store
    asker = Asker(service, answers)
    for claim in (market.hourly, market.volumetric, market.corrected, market.stored):
        asker.ask("certificate_get", claim=claim.hex())
    asker.ask("trace_lot", lot=format_lot_id(market.lots[-1]))


def ask_about_forks(answers: Answers) -> None:
    """Two blocks of the full chain are decided twice: one in the same round, one in another."""
    chain = make_full_chain().chain
    service = FakeService()
    service.store = MemoryStore(chain.store.scan(b"", b"\xff"))
    for height, round_ in ((1, 0), (chain.height, 1)):
        header = get_header(service.store, height)
        other = replace(header, time_ms=header.time_ms + 1)
        decided = chain_store.find_certificate(service.store, height)
        assert decided is not None
        again = replace(decided, block_id=compute_block_id(other), round=round_)
        seen = Fork(PublicKey(bytes(32)), 0, make_final_header(header, decided), make_final_header(other, again))
        service.store.write(compute_fork_changes(service.store, seen))
    for name in ("chain_forks", "chain_status"):
        Asker(service, answers).ask(name)


def ask_of_sources(asker: Asker) -> None:
    for meter in [one["meter"] for one in asker.answers["meter_list"][1]["meters"]]:
        asker.ask("reading_list", meter=meter, limit=1)
        asker.ask("reading_list", meter=meter, limit=1_000)
        asker.ask("trace_source", meter=meter)
        asker.ask("trace_source", meter=meter, by="hour", limit=1)
    asker.ask("trace_source", zone="DE-LU", technology="solar", from_ms=DAY_0_MS, until_ms=2 * DAY_0_MS)
    asker.ask("trace_source", site=asker.answers["site_list"][0]["sites"][0]["site"])
    asker.ask("energy_residual_mix", zone="DE-LU", from_ms=DAY_0_MS, until_ms=2 * DAY_0_MS)
    asker.ask("energy_residual_mix", zone="DE-LU")
    for lot in [one["lot"] for one in asker.answers["lot_list"][1]["lots"]]:
        asker.ask("trace_lot", lot=lot)
        asker.ask("trace_lot", lot=lot, limit=1)


def ask_of_holder(asker: Asker, holder: str) -> None:
    asker.ask("trace_holder", participant=holder, from_ms=DAY_0_MS, until_ms=2 * DAY_0_MS)
    asker.ask("trace_holder", participant=holder, limit=1)
    asker.ask("energy_balance", holder=holder)
    asker.ask("energy_slices", holder=holder, limit=1)
    asker.ask("energy_slices", holder=holder, limit=1_000)
    asker.ask("credit_balance", holder=holder)


def ask_of_transactions(asker: Asker, chain: CertifiedChain) -> None:
    for height in range(1, chain.height + 1):
        for tx_id in asker.ask("chain_block", height=height)["tx_ids"]:
            asker.ask("tx_get", tx_id=tx_id)
            asker.ask("proof_transaction", tx_id=tx_id)
    asker.ask("proof_state", key=next(chain.store.scan(b"s", b"t"))[0].hex())
    asker.ask("proof_state", key=b"s nothing".hex())


def submit_everything(answers: Answers) -> None:
    """What becomes of transactions: a chain of their own, on which nothing is committed unasked."""
    service = FakeService(commits=False)
    asker = Asker(service, answers)
    asker.ask("proof_state", key=b"s".hex())
    issues = [sign_fake(make_issue(f"p{number}"), UTILITY) for number in range(3)]
    first, *_ = issues
    asker.ask("tx_simulate", transaction=first.raw.hex())
    asker.ask("tx_submit", transaction=first.raw.hex())
    overspent = sign_fake(make_transfer(5), ALICE)
    asker.ask("tx_submit_many", transactions=[*(one.raw.hex() for one in issues[1:]), overspent.raw.hex(), "zz"])
    asker.ask("tx_get", tx_id=first.tx_id)
    service.drop(Hash(bytes.fromhex(issues[-1].tx_id)), NotAdmitted("transaction_expired", "x"))
    asker.ask("tx_get", tx_id=issues[-1].tx_id)
    asker.ask("tx_submit_many", transactions=[countersign().hex()], wait="committed", timeout_ms=0)
    asker.ask("tx_pending")
    asker.ask("tx_pending", limit=1)
    service.commit()
    service.commits = True
    asker.ask("tx_submit", transaction=sign_fake(make_transfer(7), ALICE).raw.hex(), wait="committed")


def countersign() -> bytes:
    """A transaction that needs two signatures."""
    payload = RegisterSite(ALICE.address, Technology.SOLAR, "DE-LU", 1_000, "roof", GENESIS_MS)
    signed = sign_payload(payload, chain_id=CHAIN_ID, valid_until=100, salt=bytes(8), signer=UTILITY, cosigners=[ALICE])
    return signed.raw


def make_network() -> Network:
    """A network with one peer, as far as ``describe_peers`` looks at one."""
    key, traffic = PublicKey(bytes(32)), {"vote": Traffic(3, 400, 1, 100)}
    queues = dict.fromkeys(QueueClass, 1)
    peer = PeerInfo(key, "beta", "10.0.0.2", 8601, 1, True, 5, traffic, traffic, queues, queues, 1, 0)
    standing = PeerStanding(key, None, True, 0, 0, -3, "message_malformed", 1, 0, False)
    return cast(Network, SimpleNamespace(peers=lambda: [peer], standings=lambda: [standing]))


@pytest.fixture(scope="module")
def description() -> Description:
    return Description(make_document(METHODS.values(), load_table(), version="1"))


@pytest.fixture(scope="module")
def answers() -> Answers:
    asked: Answers = defaultdict(list)
    for ask in (ask_everything, ask_the_market, ask_about_forks, submit_everything):
        ask(asked)
    return asked


@pytest.mark.parametrize("method", sorted(METHODS.keys() - ON_SOCKETS))
def test_every_answer_is_as_the_document_says(method: str, description: Description, answers: Answers) -> None:
    assert answers[method], "nobody asked"
    for one in answers[method]:
        description.check(description.results[method], one)


def test_every_part_of_every_result_was_seen_in_an_answer(description: Description, answers: Answers) -> None:
    """So no list is empty in all answers, and nothing that may be null always is."""
    wanted: set[str] = set()
    seen: set[str] = set()
    for method in METHODS.keys() - ON_SOCKETS - {"rpc.discover"}:  # whose schemas may say anything
        schema = description.results[method]
        wanted.update(at for at, _ in description.list_schemas(schema, method))
        for one in answers[method]:
            seen.update(description.list_seen(schema, one, method))
    assert sorted(wanted - seen) == sorted(NEVER_SEEN)


def test_a_lot_is_summed_up_by_every_status_that_a_slice_can_have(answers: Answers) -> None:
    for lot in answers["lot_list"][1]["lots"]:
        assert sum(lot[f"{status}_wh"] for status in SliceStatus) == lot["wh"]


def test_no_result_is_described_as_an_object_or_a_list_and_no_more(description: Description) -> None:
    """But for the schemas in ``rpc.discover`` itself, which may say anything."""
    for method, result in description.results.items():
        vague = [at for at, one in description.list_schemas(result, method) if is_vague(one)]
        assert [at for at in vague if ".schema" not in at] == [], method


def is_vague(schema: Schema) -> bool:
    kind = schema.get("type")
    is_object, is_list = kind == "object", kind == "array"
    return (
        not schema.keys() & {"type", "anyOf", "$ref"}
        or (is_object and not isinstance(schema.get("properties", schema.get("additionalProperties")), dict))
        or (is_list and "items" not in schema)
    )


@pytest.mark.parametrize("method", ["site_get", "trace_lot", "tx_get", "certificate_get", "tx_submit_many"])
def test_a_field_too_many_or_too_few_is_seen(method: str, description: Description, answers: Answers) -> None:
    """The test above could not fail if a description let everything pass."""
    schema = description.results[method]
    for broken in list_broken(answers[method][0]):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            description.check(schema, broken)


def list_broken(answer: Json) -> Iterator[Json]:
    """An answer with one field too many or one too few, in it or in its first items."""
    if isinstance(answer, list) and answer:
        yield from ([broken, *answer[1:]] for broken in list_broken(answer[0]))
    elif isinstance(answer, dict) and "payload" not in answer and "event" not in answer:
        yield {**answer, "another": 1}
        for name, value in answer.items():
            yield {at: one for at, one in answer.items() if at != name}
            yield from ({**answer, name: broken} for broken in list_broken(value))
