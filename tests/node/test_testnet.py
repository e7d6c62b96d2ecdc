"""A test network on disk: what a new one holds, and what is refused before any process starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts_native.table import load_table
from ledger.genesis import compute_genesis_changes
from node.config import read_config
from node.keystore import load_signing_key
from node.launch import read_genesis_file
from node.testnet import KEYRING, Testnet, TestnetError


def test_every_home_knows_its_peers_and_the_same_genesis(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=4, base_port=20_000, block_ms=250)
    configs = [read_config(net.get_home(i), {}) for i in range(4)]
    assert [(one.rpc_port, one.p2p_port) for one in configs] == [(20_000 + 2 * i, 20_001 + 2 * i) for i in range(4)]
    documents = {read_genesis_file(one.genesis_file) for one in configs}
    assert len(documents) == 1
    validators = [one.public_key for one in documents.pop().validators]
    assert validators == [load_signing_key(one.key_file).public_key for one in configs]
    for index, config in enumerate(configs):
        assert [peer.public_key for peer in config.peers] == [key for i, key in enumerate(validators) if i != index]
        assert config.block_interval_ms == 250


def test_the_keyring_has_a_registered_participant_for_each_role(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=1, base_port=20_000)
    document = read_genesis_file(net.genesis_path)
    known = {one.public_key: (one.label, one.roles) for one in document.participants}
    assert {name: known[net.load_key(name).public_key] for name in net.list_keys()} == {
        name: (name, roles) for name, (roles, _) in KEYRING.items()
    }
    assert compute_genesis_changes(document, load_table())


def test_a_network_is_found_again_and_never_replaced(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=2, base_port=20_000)
    found = Testnet.open(tmp_path / "net")
    assert (found.urls, [node.pid for node in found.list_nodes()]) == (net.urls, [None, None])
    with pytest.raises(TestnetError, match="testnet_exists"):
        Testnet.create(tmp_path / "net")
    net.remove()
    with pytest.raises(TestnetError, match="testnet_missing"):
        Testnet.open(tmp_path / "net")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "testnet_not_usable"),
        ("{}", "testnet_not_usable"),
        ("[" * 5_000, "testnet_not_usable"),
        ('{"format": "x"}', "testnet_not_usable"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "testnet.json").write_text(text)
    with pytest.raises(TestnetError, match=reason):
        Testnet.open(tmp_path)


@pytest.mark.parametrize(("validators", "base_port"), [(0, 20_000), (17, 20_000), (4, 80), (4, 65_530)])
def test_impossible_numbers_are_refused(tmp_path: Path, validators: int, base_port: int) -> None:
    with pytest.raises(TestnetError, match="count_out_of_range"):
        Testnet.create(tmp_path / "net", validators=validators, base_port=base_port)
    assert not (tmp_path / "net").exists()


def test_nodes_that_are_not_there_or_do_not_run_are_refused(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=1, base_port=20_000)
    with pytest.raises(TestnetError, match="node_unknown"):
        net.kill(1)
    with pytest.raises(TestnetError, match="node_not_running"):
        net.kill(0)
