"""The configuration file: defaults without it being said, and one clear word with file and key for each mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ledger.primitives import Address, PublicKey
from node.config import (
    CONFIG_BYTES_MAX,
    ConfigError,
    PeerConfig,
    make_config,
    parse_config,
    read_config,
    write_config,
)
from node.rpc_gate import GateSettings
from p2p.budgets import PeerLimits

KEY_A, KEY_B = PublicKey(b"\xaa" * 32), PublicKey(b"\xbb" * 32)
HOME = Path("/home/node0")


def test_an_empty_file_gives_the_defaults() -> None:
    config = parse_config("", home=HOME)
    assert config == make_config(HOME)
    assert (config.rpc_host, config.rpc_port, config.p2p_port) == ("127.0.0.1", 8600, 8601)
    assert config.key_file == HOME / "validator.key.json"
    assert config.chain_directory == HOME / "chain"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = dataclasses.replace(
        make_config(tmp_path),
        moniker='Stadtwerke "Süd" \\ 1',
        rpc_host="::1",
        rpc_port=0,
        rpc_gate=GateSettings(
            requests_per_second=7,
            loopback_requests_per_second=9,
            token_hashes=frozenset({"ab" * 32, "cd" * 32}),
            reads_need_token=True,
            origins=frozenset({"https://example.org", "http://127.0.0.1:3000"}),
        ),
        p2p_host="node0.example",
        key_file=Path("/etc/wattprint/validator.key.json"),
        peers=(PeerConfig(KEY_A, "10.0.0.2", 8603), PeerConfig(KEY_B, "node3.example", 8605)),
        peer_limits=PeerLimits(
            budget_percent=200, time_share_percent=50, faults_before_ban=3, ban_ms=1_000, ban_ms_max=8_000
        ),
        allowed_peers=(KEY_B,),
        block_interval_ms=250,
        heartbeat_ms=2_000,
        mempool_transactions_max=77,
        mempool_bytes_max=5_000_000,
        documents_store="/ip4/127.0.0.1/tcp/5001",
        keep_for=(Address(b"\x01" * 20), Address(b"\x02" * 20)),
        log_level="debug",
        log_format="json",
    )
    path = write_config(config)
    assert read_config(tmp_path, {}) == config
    assert list(tmp_path.iterdir()) == [path]


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(make_config(tmp_path))
    monkeypatch.setenv("WATTPRINT_RPC_PORT", "9000")
    monkeypatch.setenv("WATTPRINT_LOG_LEVEL", "error")
    config = read_config(tmp_path)
    assert (config.rpc_port, config.log_level, config.p2p_port) == (9000, "error", 8601)


@pytest.mark.parametrize(
    ("text", "reason", "key"),
    [
        ("monicker = 'a'", "config_key_unknown", "monicker"),
        ("[rpc]\nprot = 1", "config_key_unknown", "rpc.prot"),
        ("'rpc.port' = 1", "config_key_unknown", "rpc.port"),
        ("[unknown]\nport = 1", "config_key_unknown", "unknown"),
        ("rpc = 8600", "config_type_wrong", "rpc"),
        ("moniker = 5", "config_type_wrong", "moniker"),
        ("moniker = ''", "config_value_out_of_range", "moniker"),
        ('moniker = "a\\u001b[31m"', "config_value_out_of_range", "moniker"),
        ("[rpc]\nport = '8600'", "config_type_wrong", "rpc.port"),
        ("[rpc]\nport = true", "config_type_wrong", "rpc.port"),
        ("[rpc]\nport = 86.0", "config_type_wrong", "rpc.port"),
        ("[rpc]\nport = 65536", "config_value_out_of_range", "rpc.port"),
        ("[consensus]\nblock_interval_ms = 0", "config_value_out_of_range", "consensus.block_interval_ms"),
        ("[mempool]\nbytes_max = -1", "config_value_out_of_range", "mempool.bytes_max"),
        ("[log]\nlevel = 'loud'", "config_value_out_of_range", "log.level"),
        ("[documents]\nkeep_for = ['wp1']", "config_address_invalid", "documents.keep_for"),
        ("[documents]\nkeep_for = [1]", "config_address_invalid", "documents.keep_for"),
        ("[p2p]\nallowed = 'aa'", "config_type_wrong", "p2p.allowed"),
        ("[p2p]\nallowed = ['aa']", "config_public_key_invalid", "p2p.allowed[0]"),
        (f"[p2p]\nallowed = ['{'AA' * 32}']", "config_public_key_invalid", "p2p.allowed[0]"),
        ("[rpc]\nreads_need_token = 1", "config_type_wrong", "rpc.reads_need_token"),
        ("[rpc]\ntokens = ['secret']", "config_token_hash_invalid", "rpc.tokens[0]"),
        ("[rpc]\norigins = ['*']", "config_origin_invalid", "rpc.origins[0]"),
        ("[rpc]\norigins = ['https://example.org/']", "config_origin_invalid", "rpc.origins[0]"),
        ("[p2p]\ntime_share_percent = 0", "config_value_out_of_range", "p2p.time_share_percent"),
        ("[p2p]\npeers = [1]", "config_type_wrong", "p2p.peers[0]"),
        ("[[p2p.peers]]\nhost = 'a'\nport = 1", "config_key_missing", "p2p.peers[0].public_key"),
        ("[[p2p.peers]]\nname = 'a'", "config_key_unknown", "p2p.peers[0].name"),
        (f"[p2p]\nallowed = [{'1,' * 101}]", "config_value_out_of_range", "p2p.allowed"),
        ("moniker = ", "config_not_toml", "Invalid value"),
        ("moniker = " + "9" * 5_000, "config_not_toml", "4300 digits"),
        ("moniker = " + "[" * 5_000, "config_not_toml", "recursion"),
        ("a" + ".a" * 100_000 + " = 1", "config_too_large", "dots"),  # 40 GB, and an hour
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(text: str, reason: str, key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_config(text, home=HOME)
    assert refusal.value.reason == reason
    assert refusal.value.item.startswith(f"{HOME}/config.toml: ")
    assert key in refusal.value.item


def test_a_peer_listed_twice_or_with_port_zero_is_refused() -> None:
    peer = f"[[p2p.peers]]\npublic_key = '{KEY_A.hex()}'\nhost = 'a'\nport = 1\n"
    with pytest.raises(ConfigError, match="config_peer_twice"):
        parse_config(peer * 2, home=HOME)
    with pytest.raises(ConfigError, match="config_value_out_of_range"):
        parse_config(peer.replace("port = 1", "port = 0"), home=HOME)


@pytest.mark.parametrize("text", ["", "-1", "8600.0", "٣", "99999999999999999999"])
def test_an_override_is_checked_as_the_file_is(text: str) -> None:
    with pytest.raises(ConfigError, match="WATTPRINT_RPC_PORT"):
        parse_config("", home=HOME, environment={"WATTPRINT_RPC_PORT": text})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config_missing"):
        read_config(tmp_path, {})
    path = tmp_path / "config.toml"
    for content, reason in (
        (b"\xff", "config_not_toml"),
        (b"#" * (CONFIG_BYTES_MAX + 1), "config_too_large"),
        (b"a = " + b"[" * 10_000, "config_not_toml"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=reason):
            read_config(tmp_path, {})
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="config_not_usable"):
        read_config(tmp_path, {})


def test_a_wrong_setting_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config_value_out_of_range"):
        write_config(dataclasses.replace(make_config(tmp_path), rpc_port=-1))
    assert list(tmp_path.iterdir()) == []
