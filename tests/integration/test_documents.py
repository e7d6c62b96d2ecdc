"""Documents in a test network: personal data is nowhere in clear, on no disk, wire or log; copies survive a disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from contracts_native.documents import DocumentKind
from contracts_native.kyc import Citation, DecideKyc, KycDecision
from ledger.errors import NotPermitted
from node.client import Client
from node.config import read_config, write_config
from node.documents.embedded import EmbeddedStore
from node.documents.grants import DocumentKey, GrantPlace, format_identity, open_grant
from node.documents.service import About, Added, Documents
from node.launch import STORE_NAME
from node.leveldb_store import LevelDbStore
from node.testnet import LOG_NAME, Testnet
from tests.integration.lying_daemon import Answer, run_daemon, send, wait_for_the_end
from tests.integration.processes import BLOCK_MS, TIMEOUT_MS
from tests.integration.wiretap import Tap, open_taps, read_stream

FILE_NAME: Final = "passport-of-erika-mustermann.pdf"
NAME: Final = b"Erika Mustermann, born 1964-08-12 in Berlin"
CONTENT: Final = NAME + b"; " + hashlib.shake_128(b"scan").digest(90_000) + b"; document number C01X00T478"
TLS_HANDSHAKE: Final = b"\x16\x03"
STOP_SECONDS_MAX: Final = 8  # before the deadline of a call to the daemon, 10
WINDOW: Final = 24  # bytes; shorter would be found by chance in other forms


def list_forms(secret: bytes) -> Iterator[bytes]:
    """The bytes, and how hexadecimal and base64 write them wherever they begin."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        # The letters at both ends also depend on what stands beside.
        yield base64.b64encode(bytes(shift) + secret)[4 if shift else 0 : -4]


def list_secrets(key: DocumentKey) -> dict[str, bytes]:
    """What must not be found: pieces of the content, the name of the file, unsalted hashes, and the key."""
    pieces = {f"content at {start}": CONTENT[start : start + WINDOW] for start in range(0, len(CONTENT), 7_919)}
    return {
        **pieces,
        "name in the content": NAME,
        "end of the content": CONTENT[-WINDOW:],
        "name of the file": FILE_NAME.encode(),
        "stem of the file's name": Path(FILE_NAME).stem.encode(),
        "hash of the content": hashlib.sha256(CONTENT).digest(),
        "hash of the file's name": hashlib.sha256(FILE_NAME.encode()).digest(),
        "key of the document": key,
        "key as age writes it": format_identity(key).encode(),
    }


def find_secrets(places: dict[str, bytes], secrets: dict[str, bytes]) -> list[str]:
    return [
        f"{what} in {place}"
        for place, data in places.items()
        for what, secret in secrets.items()
        if any(form in data for form in list_forms(secret))
    ]


async def test_personal_data_is_nowhere_in_clear(tmp_path: Path) -> None:
    paper = tmp_path / "person" / FILE_NAME
    paper.parent.mkdir()
    paper.write_bytes(CONTENT)
    store = EmbeddedStore(tmp_path / "store")
    net = Testnet.create(tmp_path / "net", validators=2, block_ms=BLOCK_MS, base_port=0)
    configs = [read_config(net.get_home(index)) for index in range(2)]
    ports = [configs[0].rpc_port, *(config.p2p_port for config in configs)]
    async with open_taps(ports) as taps:
        for index, config in enumerate(configs):
            peers = tuple(replace(peer, port=taps[2 - index].port) for peer in config.peers)
            write_config(replace(config, peers=peers, log_level="debug"))
        try:
            await net.start(timeout_ms=TIMEOUT_MS)
            added, key = await play(net, f"http://127.0.0.1:{taps[0].port}", store, paper)
        finally:
            await net.stop()
    assert (tmp_path / "person" / "read").read_bytes() == CONTENT
    places = collect(net, tmp_path / "store", taps)
    check_that_the_search_sees(places, added)
    assert find_secrets(places, list_secrets(key)) == []


async def test_a_utilitys_node_keeps_copies_and_a_lost_disk_loses_no_document(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=2, block_ms=BLOCK_MS, base_port=0)
    utility = net.load_key("utility")
    config = read_config(net.get_home(1))
    write_config(replace(config, keep_for=(utility.address,)))
    stores = [EmbeddedStore(net.get_home(index) / config.documents_store) for index in range(2)]
    scan = tmp_path / FILE_NAME
    scan.write_bytes(CONTENT * 8)
    try:
        await net.start(timeout_ms=TIMEOUT_MS)
        async with Client(net.urls[0]) as client:
            with closing(Documents(client, net.load_key("consumer"), timeout_ms=TIMEOUT_MS)) as hers:
                kept = await hers.add(stores[0], scan, About(DocumentKind.KYC, hers.address))
                with closing(Documents(client, utility, timeout_ms=TIMEOUT_MS)) as officers:
                    await officers.register_key()
                    await hers.grant(kept.document, [utility.address])
                    await wait_until(lambda: stores[1].list_pins() == [kept.cid])
                    shutil.rmtree(net.get_home(0) / config.documents_store)
                    await officers.get(stores[1], kept.document, tmp_path / "read")
                    assert (tmp_path / "read").read_bytes() == CONTENT * 8
                await hers.retire(stores[1], kept.document)
    finally:
        await net.stop()
    assert stores[1].list_pins() == []


@pytest.mark.parametrize(
    "answer",
    [None, wait_for_the_end, send(b""), send(b"no daemon at all")],
    ids=["down", "silent", "hangs up", "broken"],
)
async def test_a_node_is_unharmed_by_a_daemon_that_is_down_silent_or_broken(
    tmp_path: Path, answer: Answer | None
) -> None:
    """It commits, it answers, it says in its log what is wrong, and it stops in time."""
    net = Testnet.create(tmp_path / "net", validators=1, block_ms=BLOCK_MS, base_port=0)
    utility, log = net.load_key("utility"), net.get_home(0) / LOG_NAME
    answers = {} if answer is None else dict.fromkeys(("pin/ls", "block/get", "dag/import", "version"), answer)
    with run_daemon(answers) as daemon:
        place = "/ip4/127.0.0.1/tcp/1" if answer is None else daemon.address
        write_config(replace(read_config(net.get_home(0)), documents_store=place, keep_for=(utility.address,)))
        scan, store = tmp_path / FILE_NAME, EmbeddedStore(tmp_path / "store")
        scan.write_bytes(CONTENT)
        try:
            await net.start(timeout_ms=TIMEOUT_MS)
            async with Client(net.urls[0]) as client:
                with closing(Documents(client, utility, timeout_ms=TIMEOUT_MS)) as officers:
                    first = await officers.add(store, scan, About(DocumentKind.KYC, officers.address))
                    await wait_until(lambda: bool(daemon.asked) or b"store_unreachable" in log.read_bytes())
                    second = await officers.add(store, scan, About(DocumentKind.KYC, officers.address))
                    assert (second.submitted.height or 0) > (first.submitted.height or 0) > 0
        finally:
            started = asyncio.get_running_loop().time()
            await net.stop()
        assert asyncio.get_running_loop().time() - started < STOP_SECONDS_MAX
    assert "Traceback" not in log.read_text()


async def wait_until(holds: Callable[[], bool]) -> None:
    """What nobody tells us of is looked for again and again."""
    async with asyncio.timeout(TIMEOUT_MS / 1_000):
        while not holds():
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.05)


async def play(net: Testnet, url: str, store: EmbeddedStore, paper: Path) -> tuple[Added, DocumentKey]:
    """A paper is added, granted, read, decided on, superseded and withdrawn; the added, and the document's key."""
    consumer, utility, auditor = (net.load_key(name) for name in ("consumer", "utility", "auditor"))
    async with Client(url) as client:
        with (
            closing(Documents(client, consumer, timeout_ms=TIMEOUT_MS)) as hers,
            closing(Documents(client, utility, timeout_ms=TIMEOUT_MS)) as officers,
            closing(Documents(client, auditor, timeout_ms=TIMEOUT_MS)) as strangers,
        ):
            await officers.register_key()
            about = About(DocumentKind.KYC, consumer.address)
            added = await hers.add(store, paper, about, readers=[utility.address])
            found = await officers.get(store, added.document, paper.with_name("read"))
            place = GrantPlace((await client.chain_status())["chain_id"], added.document, utility.address)
            key = open_grant(found.grants[utility.address].sealed, utility.derive_encryption_key(), place)
            decision = DecideKyc(consumer.address, KycDecision.APPROVED, Citation(added.document, added.version))
            await client.submit(decision, key=utility, timeout_ms=TIMEOUT_MS)
            with pytest.raises(NotPermitted, match="reader_not_granted"):
                await strangers.get(store, added.document, paper.with_name("stolen"))
            await hers.supersede(store, paper, added.document)
            await hers.revoke(added.document, utility.address)
    return added, key


def collect(net: Testnet, store: Path, taps: list[Tap]) -> dict[str, bytes]:
    """Where personal data could be: every file of the nodes and the store, what LevelDB reads from its, the wires."""
    # Two nodes keep one connection, whichever dialled: its tap has both directions.
    between = max((taps[1].seen, taps[2].seen), key=len)
    places = {"wire to a node": taps[0].seen, "wire between nodes": between}
    for directory in (net.directory, store):
        for path in directory.rglob("*"):
            if path.is_file():
                places[str(path)] = path.name.encode() + b"\n" + path.read_bytes()
    for index in range(net.count):
        chain = read_config(net.get_home(index)).chain_directory
        database = LevelDbStore(chain / STORE_NAME)  # its files are compressed: what they hold is read as well
        try:
            places[f"database {index}"] = b"\n".join(key + b"=" + value for key, value in database.scan(b"", b"\xff"))
        finally:
            database.close()
    return places


def check_that_the_search_sees(places: dict[str, bytes], added: Added) -> None:
    """What is known to be there is found: on every wire, in every database, in the store. And logs were written."""
    for place in ("wire to a node", "database 0", "database 1"):
        assert find_secrets({place: places[place]}, {"cid": bytes(added.cid)}), place
    # Between nodes there is TLS, so that not even a CID is seen; what they tell each other ends in their databases.
    assert places["wire between nodes"].startswith(TLS_HANDSHAKE)
    assert not find_secrets({"": places["wire between nodes"]}, {"cid": bytes(added.cid)})
    assert [place for place in places if place.endswith(LOG_NAME) and places[place]]
    assert find_secrets({"a disk": b"..." + CONTENT[:200]}, list_secrets(DocumentKey(bytes(32))))
    assert find_secrets({"a wire": base64.b64encode(b"..." + CONTENT)}, list_secrets(DocumentKey(bytes(32))))
    masked = bytes((0x82, 0x80 | 5, 1, 2, 3, 4)) + bytes(a ^ b for a, b in zip(b"hello", b"\1\2\3\4\1", strict=True))
    assert read_stream(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + masked).endswith(b"hello")
