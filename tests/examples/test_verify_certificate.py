"""The second verifier shares no code with the first, and believes and refuses the very same files."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import importlib.util
import json
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_native.batteries import LotSources, Source
from contracts_native.claims import Claim
from contracts_native.lots import LotId, LotSlices, Mint, Reissue, SliceRef
from contracts_native.meters import ChannelSpec, Meter
from contracts_native.participants import Participant
from contracts_native.readings import Correction, ReportRecord
from contracts_native.sites import Site
from contracts_native.slices import Slice
from ledger.block import Header
from ledger.encoding import encode
from ledger.errors import Rejected
from ledger.fields import Json, get_field_types
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator, write_genesis
from ledger.parameters import Parameters
from ledger.primitives import format_address, is_valid_ed25519
from node.certificates import format as form
from node.certificates.format import compute_id, write_text
from node.certificates.verify import verify_certificate
from node.queries.certificates import certificate_get
from node.queries.view import JsonObject
from tests.contracts_native.harness import BOB
from tests.node.certificate_chain import change, list_arrays, list_leaves, list_objects, make_market, seal

FILE: Final = Path(__file__).resolve().parents[2] / "examples" / "verify_certificate.py"
SUBJECTS: Final = ("hourly", "volumetric", "corrected", "stored", "charge", "holding")
TIMEOUT_S: Final = 60
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493

# What the second verifier calls each record, for the test that it has kept up with the ledger.
RECORDS: Final[dict[str, type]] = {
    "genesis": GenesisDocument,
    "validator": GenesisValidator,
    "founder": GenesisParticipant,
    "parameters": Parameters,
    "header": Header,
    "commit": form.CommitPart,
    "precommit": form.SignaturePart,
    "change": form.ValidatorChange,
    "lot_id": LotId,
    "slice_ref": SliceRef,
    "claim": Claim,
    "participant": Participant,
    "site": Site,
    "meter": Meter,
    "channel": ChannelSpec,
    "report": ReportRecord,
    "mint": Mint,
    "reissue": Reissue,
    "correction": Correction,
    "slices": LotSlices,
    "slice": Slice,
    "sources": LotSources,
    "source": Source,
    "chain_part": form.ChainPart,
    "claim_part": form.ClaimPart,
    "holding_part": form.HoldingPart,
    "participant_part": form.ParticipantPart,
    "site_part": form.SitePart,
    "meter_part": form.MeterPart,
    "report_part": form.ReportPart,
    "lot_part": form.LotPart,
    "state_part": form.StatePart,
    "certificate": form.Certificate,
}

# Runs the file as a stranger would who has Python and one package: whatever else it asks for is not there.
STRANGERS_MACHINE: Final = """
import runpy, sys
allowed = set(sys.stdlib_module_names) | {"cryptography", "cffi", "_cffi_backend", "pycparser", "typing_extensions"}
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError("not on this machine: " + name)
sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@cache
def load_second() -> ModuleType:
    spec = importlib.util.spec_from_file_location("second_verifier", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def read_genesis() -> Json:
    return cast(Json, json.loads(json.dumps(write_genesis(make_market().chain.document))))


@cache
def issue(subject: str) -> JsonObject:
    market = make_market()
    if subject == "holding":
        data = certificate_get(market.chain.view, holder=format_address(BOB.address))
    else:
        data = certificate_get(market.chain.view, claim=getattr(market, subject).hex())
    return cast(JsonObject, json.loads(json.dumps(data)))


def ask_first(data: Json) -> str:
    """The reason of the project's own verifier, "" if it believes."""
    try:
        verify_certificate(data, make_market().chain.document)
    except Rejected as error:
        return error.reason
    return ""


def ask_second(data: Json) -> str:
    second = load_second()
    try:
        second.verify(data, read_genesis())
    except second.Refused as error:
        return str(error)
    return ""


def check_both_refuse(data: Json, what: object) -> None:
    first, second = ask_first(data), ask_second(data)
    assert first, what
    assert second, what


# — a file for itself —


def test_it_imports_the_standard_library_and_cryptography_only() -> None:
    names = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"cryptography"}


async def run(*arguments: object, code: str = STRANGERS_MACHINE) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr of the file on the stranger's machine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", code, str(FILE), *map(str, arguments)), stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        said, complaint = await process.communicate()
    return process.returncode, said.decode(), complaint.decode()


async def test_it_believes_and_refuses_where_nothing_of_the_project_is(tmp_path: Path) -> None:
    true, false, genesis = (tmp_path / name for name in ("true.json", "false.json", "genesis.json"))
    data = issue("hourly")
    true.write_bytes(write_text(data))
    false.write_bytes(write_text(change(data, ("claim", "record", "wh"), 551)))
    genesis.write_text(json.dumps(read_genesis()))
    status, said, complaint = await run(true, genesis)
    assert (status, complaint) == (0, "")
    assert "a claim of 2 lots on test-1" in said
    assert str(data["id"]) in said
    assert await run(false, genesis) == (1, "", "refused: state_proof_value_differs\n")
    assert (await run(tmp_path / "nowhere", genesis))[0] == 2


async def test_the_strangers_machine_has_nothing_of_the_project() -> None:
    last = 'runpy.run_path(sys.argv[0], run_name="__main__")'
    for name in ("msgpack", "ledger", "nacl"):
        _, _, complaint = await run(code=STRANGERS_MACHINE.replace(last, f"import {name}"))
        assert f"not on this machine: {name}" in complaint


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_it_knows_every_field_of_every_record_in_order(name: str) -> None:
    shape = load_second().SHAPES[name]
    fields = get_field_types(RECORDS[name])
    assert list(shape) == list(fields)
    for field, kind in fields.items():
        assert shape[field].endswith("?") == (type(None) in get_args(kind)), field


def test_it_knows_no_record_that_there_is_not() -> None:
    assert set(load_second().SHAPES) == set(RECORDS)


# — the same files —


@pytest.mark.parametrize("subject", SUBJECTS)
def test_both_believe_what_the_node_issued(subject: str) -> None:
    data = issue(subject)
    assert (ask_first(data), ask_second(data)) == ("", "")


@pytest.mark.parametrize(("subject", "is_sealed"), [*((one, True) for one in SUBJECTS), ("stored", False)])
def test_both_refuse_every_changed_field(subject: str, is_sealed: bool) -> None:
    data = issue(subject)
    random_ = random.Random(subject)
    for at, value in list_leaves(data):
        if at == ("id",) and is_sealed:
            continue
        changed = change(data, at, change_scalar(value, random_.random))
        check_both_refuse(seal(changed) if is_sealed else changed, at)


@pytest.mark.parametrize("subject", ["hourly", "stored", "holding"])
def test_both_refuse_every_changed_list_and_object(subject: str) -> None:
    data = issue(subject)
    for at, items in list_arrays(data):
        for other in (items[:-1], items[1:], [*items, *items[-1:]], items[::-1], [*items, None]):
            changed = change(data, at, other)
            if other != items:
                check_both_refuse(changed, at)
                first, second = ask_first(seal(changed)), ask_second(seal(changed))
                assert bool(first) == bool(second), (at, first, second)
                assert first or at == ("commit", "signatures"), at  # three of four are a quorum
    for at, fields in list_objects(data):
        for other_fields in ({**fields, "remark": 1}, dict(list(fields.items())[1:])):
            check_both_refuse(seal(change(data, at, other_fields)), at)


def change_scalar(value: Json, draw: Callable[[], float]) -> Json:
    """Another value of the same type, near or far."""
    far = draw() < 0.5
    if value is None:
        return "00" * 16
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(draw() * 2**62) + value + 1 if far else value + 1
    if isinstance(value, str):
        at = int(draw() * len(value))
        other = "1" if value[at : at + 1] == "0" else "0"
        return value[:at] + other + value[at + 1 :]
    return None


SCALARS = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.text(max_size=8) | st.binary().map(bytes.hex)


@given(subject=st.sampled_from(SUBJECTS), data=st.data(), is_sealed=st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_both_answer_alike_whatever_stands_where(subject: str, data: st.DataObject, is_sealed: bool) -> None:
    certificate = issue(subject)
    places = [at for at, _ in [*list_leaves(certificate), *list_arrays(certificate), *list_objects(certificate)]]
    leaves = [value for _, value in list_leaves(certificate)]
    changed: Json = certificate
    for at in data.draw(st.lists(st.sampled_from(places[:-1]), min_size=1, max_size=3, unique=True)):
        other = data.draw(st.sampled_from(leaves) | SCALARS | st.lists(SCALARS, max_size=2))
        try:
            changed = change(cast(JsonObject, changed), at, cast(Json, other))
        except (KeyError, IndexError, TypeError, ValueError):
            continue  # an earlier change took that place away
    if is_sealed and isinstance(changed, dict):
        try:
            changed = seal(changed)
        except UnicodeEncodeError:
            return
    first, second = ask_first(changed), ask_second(changed)
    assert bool(first) == bool(second), (first, second)
    assert first or changed == certificate


def test_both_compute_the_same_id() -> None:
    data = issue("hourly")
    content = {name: value for name, value in data.items() if name != "id"}
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert compute_id(data) == hashlib.sha256(b"wattprint/certificate/1\0" + canonical).digest()


# — the parts that it has of its own —


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.text(max_size=300) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=30,
)


@given(value=PLAIN)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_it_packs_to_the_same_bytes(value: Json) -> None:
    assert load_second().pack(value) == encode(cast("list[int]", value))


@pytest.mark.parametrize("count", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_it_packs_lengths_at_every_limit(count: int) -> None:
    pack = load_second().pack
    for value in ([1] * count, "x" * count, b"x" * count, count):
        assert pack(value) == encode(value)


def test_it_takes_no_signature_of_small_order_as_the_chain_takes_none() -> None:
    """OpenSSL alone would: R is the neutral element, s = k·a."""
    seed, message = bytes(range(32)), b"message"
    public_key = _get_public_key(seed)
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | 1 << 254
    neutral = bytes([1]) + bytes(31)
    k = int.from_bytes(hashlib.sha512(neutral + public_key + message).digest(), "little") % ED25519_ORDER
    signature = neutral + (k * scalar % ED25519_ORDER).to_bytes(32, "little")
    load_second().ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    assert not is_valid_ed25519(public_key, message, signature)
    assert not load_second().is_signed(public_key, message, signature)


def _get_public_key(seed: bytes) -> bytes:
    key = load_second().ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    return cast(bytes, key.public_key().public_bytes_raw())


@pytest.mark.parametrize("text", ["wp1" + "q" * 38, "wp1" + "q" * 39, "wp1", "", "xp1" + "q" * 38])
def test_it_takes_no_address_with_a_wrong_checksum(text: str) -> None:
    second = load_second()
    with pytest.raises(second.Refused, match="address_invalid"):
        second.read("address", text)
    assert second.read("address", format_address(BOB.address)) == BOB.address
