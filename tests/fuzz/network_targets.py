"""Targets of what peers and clients send, and of what a node finds in its journals."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from functools import cache
from typing import Final

import orjson

from consensus.codec import decode_message, encode_message
from consensus.journal import BodyFrame, StateFrame, decode_frame, encode_frame, replay
from consensus.light_client import HeaderLink, LightBlock, verify_chain
from consensus.messages import VALID_ROUND_NONE, CommitCertificate, PolkaCertificate, SignedProposal, SignedVote, Step
from consensus.validators import Validator, ValidatorSet
from ledger.block import Header, compute_block_id
from ledger.encoding import Plain, decode, encode
from ledger.errors import CorruptStore, Malformed, Rejected
from ledger.fields import from_plain, to_plain
from ledger.primitives import Height
from ledger.storage import CERTIFICATES, format_height
from node.chain_store import get_header
from node.client_errors import ClientError
from node.client_forms import read_answer
from node.journal import JournalCorrupt, parse_journal
from node.jsonrpc import (
    REJECTED,
    Fault,
    InvalidRequest,
    Request,
    encode_batch,
    encode_error,
    encode_result,
    make_fault,
    parse,
)
from node.rpc_gate import Gate, GateSettings
from node.rpc_methods import METHODS
from node.subscriptions import read_filter
from p2p import messages as wire
from p2p.session import Role, SessionEvent
from p2p.tls import PeerTls, read_certificate_key
from tests.consensus.test_messages import MESSAGES
from tests.fuzz.target import Target
from tests.node.certificate_chain import VALIDATORS, make_context, make_market
from tests.p2p.dialogue import ALICE, BOB, START_MS, make_session
from tests.p2p.test_messages import EXAMPLES

_HEAD: Final = struct.Struct(">IBI")
_JOURNAL_MAGIC: Final = b"wpjrnl1\n"


def take_consensus(data: bytes) -> None:
    assert encode_message(decode_message(data)) == data


def take_consensus_journal(data: bytes) -> None:
    assert encode_frame(decode_frame(data)) == data
    replay([data])


def list_consensus_journal_seeds() -> list[bytes]:
    own = tuple(one for one in MESSAGES if isinstance(one, SignedProposal | SignedVote))
    polkas = tuple(one for one in MESSAGES if isinstance(one, PolkaCertificate))
    proposal = next(one for one in own if isinstance(one, SignedProposal))
    block_id = proposal.proposal.block_id
    height = proposal.proposal.height
    return [
        encode_frame(BodyFrame(proposal, b"the body of a block")),
        encode_frame(StateFrame(height, 2, Step.PREVOTE, 1, block_id, 1, block_id, own, polkas)),
        encode_frame(StateFrame(height, 0, Step.PROPOSE, VALID_ROUND_NONE, None, VALID_ROUND_NONE, None, (), ())),
    ]


def take_journal(data: bytes) -> None:
    frames, end = parse_journal(data, name="journal")
    assert end <= len(data)
    assert parse_journal(data[:end], name="journal") == (frames, end)


def make_record(kind: int, body: bytes) -> bytes:
    """A record whose sums are right, whatever its body is."""
    summed = _HEAD.pack(len(body), kind, zlib.crc32(body))
    return summed + zlib.crc32(summed).to_bytes(4, "big") + body + b"\xa5"


def take_sealed_journal(data: bytes) -> None:
    """Records of a stranger who knows the sums: each line of ``data`` is one, its first byte the kind."""
    records = [make_record(one[0], one[1:]) for one in data.split(b"\n") if one]
    take_journal(_JOURNAL_MAGIC + b"".join(records))


def make_frame_part(frame: bytes) -> bytes:
    return len(frame).to_bytes(4, "big") + frame


def list_journal_seeds() -> list[bytes]:
    records = (make_record(1, make_frame_part(b"vote")), make_record(2, b""), make_record(1, make_frame_part(b"") * 2))
    whole = _JOURNAL_MAGIC + b"".join(records)
    return [whole, whole[:-3], whole + bytes(1024), _JOURNAL_MAGIC]


def list_sealed_journal_seeds() -> list[bytes]:
    return [b"\1" + make_frame_part(b"vote") * 2 + b"\n\2\n\1" + make_frame_part(b""), b"\1"]


@cache
def make_header_plain(height: int) -> Plain:
    return to_plain(get_header(make_market().chain.store, height))


def take_light_client(data: bytes) -> None:
    """Headers with their certificates and the sets that signed, from genesis on."""
    chain = make_market().chain
    genesis = get_header(chain.store, 0)
    parent = _make_link(genesis)
    values = decode(data)
    blocks = [_read_light_block(one) for one in values] if isinstance(values, tuple) else []
    verify_chain(blocks, make_context(chain.document), parent=parent, validators_hash=genesis.next_validators_hash)


def _read_light_block(value: Plain) -> LightBlock:
    match value:
        case (header, bytes() as certificate, tuple() as members):
            read = decode_message(certificate)
            keys = [key for key in members if isinstance(key, bytes)]
            if isinstance(read, CommitCertificate) and 0 < len(set(keys)) == len(keys) <= len(VALIDATORS):
                named = tuple(Validator(one.public_key, one.name) for one in VALIDATORS if one.public_key in keys)
                if named:
                    return LightBlock(_make_link(from_plain(Header, header)), read, ValidatorSet(named))
    raise Malformed("block_malformed")


def _make_link(header: Header) -> HeaderLink:
    block_id = compute_block_id(header)
    return HeaderLink(
        Height(header.height), block_id, header.parent_id, header.validators_hash, header.next_validators_hash
    )


def list_light_client_seeds() -> list[bytes]:
    store = make_market().chain.store
    keys = [one.public_key for one in VALIDATORS]
    blocks = []
    for height in (1, 2, 3):
        certificate = store.get(CERTIFICATES + format_height(height))
        assert certificate is not None
        blocks.append((make_header_plain(height), certificate, keys))
    return [encode(blocks), encode(blocks[:1])]


def take_wire(data: bytes) -> None:
    assert wire.encode_frame(wire.decode_frame(data)) == data


def take_session(data: bytes) -> None:
    """Frames in a row, each behind its length; an odd first byte makes us the side that dialled."""
    role, local = (Role.DIALLER, ALICE) if data[:1] and data[0] & 1 else (Role.LISTENER, BOB)
    session = make_session(local, role)
    now_ms, rest = START_MS, data[1:]
    while len(rest) >= 2:
        length = int.from_bytes(rest[:2], "big")
        events: list[SessionEvent] = session.receive(rest[2 : 2 + length], now_ms)
        assert len(events) <= 1
        now_ms, rest = now_ms + 100, rest[2 + length :]


def list_session_seeds() -> list[bytes]:
    """A whole handshake, then a message of each type."""
    seeds = []
    for number, role, local, peer in ((0, Role.LISTENER, BOB, ALICE), (1, Role.DIALLER, ALICE, BOB)):
        other = make_session(peer, role.opposite)
        frames = [other.start(START_MS).frame]
        own_hello = make_session(local, role).start(START_MS).frame
        frames += [getattr(event, "frame", b"") for event in other.receive(own_hello, START_MS)]
        frames += [wire.encode_frame(one) for one in EXAMPLES if not isinstance(one, wire.Hello | wire.Proof)]
        seeds.append(bytes((number,)) + b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames))
    return seeds


def take_tls_certificate(data: bytes) -> None:
    read_certificate_key(data)


def list_tls_seeds() -> list[bytes]:
    return [PeerTls(one).certificate for one in (ALICE, BOB)]


def take_jsonrpc(data: bytes) -> None:
    """A body, as far as a node goes before it asks its chain: requests, parameters, subscription filters, answers."""
    parsed = parse(data)
    answers = [_answer(item) for item in (parsed if isinstance(parsed, list) else [parsed])]
    orjson.loads(encode_batch(answers))


def _answer(item: Request | InvalidRequest) -> bytes:
    if isinstance(item, InvalidRequest):
        return encode_error(item.id, item.fault)
    method = METHODS.get(item.method)
    if method is None:
        return encode_result(item.id, None)
    try:
        arguments = method.bind(item.params)
        if item.method == "subscribe":
            wanted: object = arguments.get("filter")
            read = read_filter(wanted if isinstance(wanted, dict) else None)
            read.lets_through({"event": "lot.minted", "height": 1})
    except Fault as fault:
        return encode_error(item.id, fault)
    except Malformed as error:
        return encode_result(item.id, error.reason)
    return encode_result(item.id, len(arguments))


def list_jsonrpc_seeds() -> list[bytes]:
    address = "wp1" + "q" * 38
    calls = [
        ("energy_balance", {"holder": address}),
        ("tx_submit", {"transaction": "9200", "wait": "committed", "timeout_ms": 5}),
        ("tx_submit_many", {"transactions": ["00", "91"]}),
        ("subscribe", {"topic": "events", "filter": {"event": "lot.minted", "participant": address}}),
        ("energy_slices", {"holder": address, "status": "active", "limit": 3, "from_ms": 0}),
        ("proof_state", {"key": "00"}),
        ("chain_block", [1]),
    ]
    bodies = [{"jsonrpc": "2.0", "id": at, "method": name, "params": given} for at, (name, given) in enumerate(calls)]
    return [*(orjson.dumps(one) for one in bodies), orjson.dumps(bodies)]


def take_answer(data: bytes) -> None:
    """What a node that a client asked may say."""
    with suppress(ClientError):
        read_answer(data, "http://127.0.0.1:8600")


def list_answer_seeds() -> list[bytes]:
    return [encode_result(1, {"height": 1}), encode_error(1, make_fault(REJECTED, "offer_expired", "item"))]


def take_headers(data: bytes) -> None:
    """Headers of a browser or a client, each on a line: Origin, Host, Authorization, as the server decodes them."""
    texts = data.decode(errors="surrogateescape").split("\n")
    origin, host, authorization, address = (*texts, "", "", "", "")[:4]
    gate = Gate(GateSettings(token_hashes=frozenset({"0" * 64}), origins=frozenset({"https://example.org"})))
    visitor = gate.identify(address, authorization)
    assert not visitor.has_token
    gate.is_within_rate(visitor, 0)
    if gate.is_origin_allowed(origin, host):
        gate.make_preflight_headers(origin)


def list_header_seeds() -> list[bytes]:
    return [
        b"http://127.0.0.1:8600\n127.0.0.1:8600\nBearer token\n::ffff:203.0.113.1",
        b"https://example.org\nlocalhost\nbearer \xff\n2001:db8::1",
    ]


NETWORK_TARGETS: Final = (
    Target("consensus", take_consensus, (Malformed,), lambda: [encode_message(one) for one in MESSAGES]),
    Target("consensus-journal", take_consensus_journal, (CorruptStore,), list_consensus_journal_seeds),
    Target("light-client", take_light_client, (Rejected,), list_light_client_seeds),
    Target("journal", take_journal, (JournalCorrupt,), list_journal_seeds),
    Target("sealed-journal", take_sealed_journal, (JournalCorrupt,), list_sealed_journal_seeds),
    Target("wire", take_wire, (Rejected,), lambda: [wire.encode_frame(one) for one in EXAMPLES]),
    Target("session", take_session, (), list_session_seeds),
    Target("tls-certificate", take_tls_certificate, (Rejected,), list_tls_seeds),
    Target("jsonrpc", take_jsonrpc, (Fault,), list_jsonrpc_seeds),
    Target("headers", take_headers, (), list_header_seeds),
    Target("answer", take_answer, (), list_answer_seeds),
)
