"""A node's configuration: one TOML file in its home, strict, with an environment override for what differs by host.

Owns every setting's name, type, default and range. A key nobody knows is refused: a misspelt limit must not pass
for a default. Consensus parameters are not here; they stand in the genesis document.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from ledger.errors import Malformed
from ledger.primitives import PUBLIC_KEY_BYTES, Address, PublicKey, format_address, parse_address
from node.errors import LocalError, get_disk_reason
from node.files import write_replacing
from node.rpc_gate import DEFAULT_GATE, GateSettings
from p2p.budgets import DEFAULT_LIMITS, PeerLimits

CONFIG_NAME: Final = "config.toml"
CONFIG_BYTES_MAX: Final = 256 * 1024
DOTS_MAX: Final = 2_000  # the reader of TOML takes n² steps, and memory, for a key of n parts; a full file has 1,000
PEERS_MAX: Final = 100
TEXT_LENGTH_MAX: Final = 1_000
MONIKER_LENGTH_MAX: Final = 64
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("human", "json")
ENVIRONMENT_KEYS: Final = {
    "WATTPRINT_MONIKER": "moniker",
    "WATTPRINT_RPC_HOST": "rpc.host",
    "WATTPRINT_RPC_PORT": "rpc.port",
    "WATTPRINT_P2P_HOST": "p2p.host",
    "WATTPRINT_P2P_PORT": "p2p.port",
    "WATTPRINT_LOG_LEVEL": "log.level",
    "WATTPRINT_LOG_FORMAT": "log.format",
}

# Whole numbers: key → default, least, most.
_NUMBERS: Final = {
    "rpc.port": (8600, 0, 65_535),  # 0: any free port
    "rpc.requests_per_second": (100, 0, 1_000_000),  # 0: no limit
    "rpc.loopback_requests_per_second": (0, 0, 1_000_000),
    "p2p.port": (8601, 0, 65_535),
    "p2p.budget_percent": (100, 10, 10_000),
    "p2p.time_share_percent": (25, 1, 100),
    "p2p.faults_before_ban": (5, 1, 100),
    "p2p.ban_ms": (60_000, 100, 86_400_000),
    "p2p.ban_ms_max": (3_600_000, 100, 86_400_000),
    "consensus.block_interval_ms": (500, 10, 60_000),
    "consensus.heartbeat_ms": (10_000, 100, 3_600_000),
    "mempool.transactions_max": (10_000, 1, 1_000_000),
    "mempool.bytes_max": (16 * 1024 * 1024, 1024, 1024 * 1024 * 1024),
}
_TEXTS: Final = {
    "moniker": "node",
    "genesis_file": "genesis.json",
    "key_file": "validator.key.json",
    "chain_directory": "chain",
    "rpc.host": "127.0.0.1",
    "p2p.host": "127.0.0.1",
    "documents.store": "documents",
    "log.level": "info",
    "log.format": "human",
}
_FLAGS: Final = {"rpc.reads_need_token": False}
_LISTS: Final = ("p2p.allowed", "p2p.peers", "rpc.tokens", "rpc.origins", "documents.keep_for")
_TOKEN_HASH: Final = re.compile("[0-9a-f]{64}")
_ORIGIN: Final = re.compile(r"https?://[a-z0-9.\-\[\]:]{1,255}")
_SECTIONS: Final = frozenset(key.partition(".")[0] for key in (*_NUMBERS, *_TEXTS, *_FLAGS, *_LISTS) if "." in key)
_PEER_KEYS: Final = frozenset({"public_key", "host", "port"})


class ConfigError(LocalError):
    """The configuration cannot be used; the item names the file and the key.

    Reasons: ``config_missing``, ``config_not_usable``, ``permission_missing``, ``disk_full``, ``config_too_large``,
    ``config_not_toml``, ``config_key_unknown``, ``config_key_missing``, ``config_type_wrong``,
    ``config_value_out_of_range``, ``config_public_key_invalid``, ``config_peer_twice``, ``config_token_hash_invalid``,
    ``config_address_invalid``,
    ``config_origin_invalid``.
    """


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A peer to keep a connection to."""

    public_key: PublicKey
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Every setting of a node. Paths are absolute, resolved against the file's directory."""

    home: Path
    moniker: str = "node"
    genesis_file: Path
    key_file: Path
    chain_directory: Path  # the database and the journal live here
    rpc_host: str = "127.0.0.1"
    rpc_port: int = 8600
    rpc_gate: GateSettings = DEFAULT_GATE
    p2p_host: str = "127.0.0.1"
    p2p_port: int = 8601
    peers: tuple[PeerConfig, ...] = ()
    peer_limits: PeerLimits = DEFAULT_LIMITS
    allowed_peers: tuple[PublicKey, ...] = ()  # may connect though they are neither validators nor listed peers
    block_interval_ms: int = 500
    heartbeat_ms: int = 10_000  # an empty block after this long without transactions
    mempool_transactions_max: int = 10_000
    mempool_bytes_max: int = 16 * 1024 * 1024
    documents_store: str = "documents"  # a directory, relative to the home, or an IPFS daemon: /ip4/127.0.0.1/tcp/5001
    keep_for: tuple[Address, ...] = ()  # copies are kept here of every document that one of these can read
    log_level: str = "info"
    log_format: str = "human"


def make_config(home: Path) -> NodeConfig:
    """The default configuration of a home; change it with ``dataclasses.replace``."""
    return parse_config("", home=home)


def read_config(home: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """The configuration of ``home``/config.toml; ``environment`` is the process's own unless given. ``ConfigError``."""
    path = home / CONFIG_NAME
    try:
        with path.open("rb") as stream:
            data = stream.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError("config_missing", path) from None
    except OSError as error:
        raise ConfigError(get_disk_reason(error, otherwise="config_not_usable"), f"{path}: {error.strerror}") from error
    if len(data) > CONFIG_BYTES_MAX:
        raise ConfigError("config_too_large", f"{path}: at most {CONFIG_BYTES_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError("config_not_toml", f"{path}: not UTF-8") from None
    return parse_config(text, home=home, environment=os.environ if environment is None else environment)


def write_config(config: NodeConfig) -> Path:
    """Writes a home's config.toml, replacing an older one whole, and gives its path.

    Raises ``ConfigError`` for a value that could not be read back.
    """
    text = format_config(config)
    path = config.home / CONFIG_NAME
    assert parse_config(text, home=config.home) == config, "a setting is lost on its way through the file"
    try:
        write_replacing(path, text.encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(get_disk_reason(error, otherwise="config_not_usable"), f"{path}: {error.strerror}") from error
    return path


def parse_config(text: str, *, home: Path, environment: Mapping[str, str] | None = None) -> NodeConfig:
    """The configuration that a TOML text and the environment's overrides say. Raises ``ConfigError``."""
    home = home.absolute()
    path = home / CONFIG_NAME
    if text.count(".") > DOTS_MAX:
        raise ConfigError("config_too_large", f"{path}: more than {DOTS_MAX} dots")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise ConfigError("config_not_toml", f"{path}: {error}") from None
    values = _flatten(document, path)
    values |= _read_environment(environment or {}, path)
    texts = {key: _check_text(key, values.get(key, default), path) for key, default in _TEXTS.items()}
    numbers = {key: _check_number(key, values.get(key, limits[0]), path) for key, limits in _NUMBERS.items()}
    return NodeConfig(
        home=home,
        moniker=texts["moniker"],
        genesis_file=home / texts["genesis_file"],
        key_file=home / texts["key_file"],
        chain_directory=home / texts["chain_directory"],
        rpc_host=texts["rpc.host"],
        rpc_port=numbers["rpc.port"],
        rpc_gate=GateSettings(
            requests_per_second=numbers["rpc.requests_per_second"],
            loopback_requests_per_second=numbers["rpc.loopback_requests_per_second"],
            token_hashes=_parse_texts("rpc.tokens", _TOKEN_HASH, "config_token_hash_invalid", values, path),
            reads_need_token=_check_flag("rpc.reads_need_token", values, path),
            origins=_parse_texts("rpc.origins", _ORIGIN, "config_origin_invalid", values, path),
        ),
        p2p_host=texts["p2p.host"],
        p2p_port=numbers["p2p.port"],
        peer_limits=PeerLimits(
            budget_percent=numbers["p2p.budget_percent"],
            time_share_percent=numbers["p2p.time_share_percent"],
            faults_before_ban=numbers["p2p.faults_before_ban"],
            ban_ms=numbers["p2p.ban_ms"],
            ban_ms_max=max(numbers["p2p.ban_ms"], numbers["p2p.ban_ms_max"]),
        ),
        peers=_parse_peers(values.get("p2p.peers", []), path),
        allowed_peers=_parse_allowed(values.get("p2p.allowed", []), path),
        block_interval_ms=numbers["consensus.block_interval_ms"],
        heartbeat_ms=numbers["consensus.heartbeat_ms"],
        mempool_transactions_max=numbers["mempool.transactions_max"],
        mempool_bytes_max=numbers["mempool.bytes_max"],
        documents_store=texts["documents.store"],
        keep_for=_parse_keep_for(values.get("documents.keep_for", []), path),
        log_level=texts["log.level"],
        log_format=texts["log.format"],
    )


def format_config(config: NodeConfig) -> str:
    """The TOML text of a configuration; files under the home are written relative to it."""
    lines = [
        f"moniker = {_quote(config.moniker)}",
        f"genesis_file = {_quote(_shorten(config.genesis_file, config.home))}",
        f"key_file = {_quote(_shorten(config.key_file, config.home))}",
        f"chain_directory = {_quote(_shorten(config.chain_directory, config.home))}",
        *("", "[rpc]", f"host = {_quote(config.rpc_host)}", f"port = {config.rpc_port}"),
        *_format_gate(config.rpc_gate),
        *("", "[p2p]", f"host = {_quote(config.p2p_host)}", f"port = {config.p2p_port}"),
        *(f"{field.name} = {getattr(config.peer_limits, field.name)}" for field in fields(PeerLimits)),
        f"allowed = [{', '.join(_quote(key.hex()) for key in config.allowed_peers)}]",
    ]
    for peer in config.peers:
        lines += ["", "[[p2p.peers]]", f"public_key = {_quote(peer.public_key.hex())}"]
        lines += [f"host = {_quote(peer.host)}", f"port = {peer.port}"]
    lines += ["", "[consensus]", f"block_interval_ms = {config.block_interval_ms}"]
    lines += [f"heartbeat_ms = {config.heartbeat_ms}"]
    lines += ["", "[mempool]", f"transactions_max = {config.mempool_transactions_max}"]
    lines += [f"bytes_max = {config.mempool_bytes_max}"]
    lines += ["", "[documents]", f"store = {_quote(config.documents_store)}"]
    lines += [f"keep_for = [{', '.join(_quote(format_address(one)) for one in config.keep_for)}]"]
    lines += ["", "[log]", f"level = {_quote(config.log_level)}", f"format = {_quote(config.log_format)}"]
    return "\n".join(lines) + "\n"


def _format_gate(gate: GateSettings) -> list[str]:
    return [
        f"requests_per_second = {gate.requests_per_second}",
        f"loopback_requests_per_second = {gate.loopback_requests_per_second}",
        f"tokens = [{', '.join(map(_quote, sorted(gate.token_hashes)))}]",
        f"reads_need_token = {str(gate.reads_need_token).lower()}",
        f"origins = [{', '.join(map(_quote, sorted(gate.origins)))}]",
    ]


def _flatten(document: Mapping[str, object], path: Path) -> dict[str, object]:
    """Section and key joined by a dot → value; refuses what is not a setting."""
    values: dict[str, object] = {}
    for name, value in document.items():
        if "." in name:  # a quoted key must not pass for a section's
            raise ConfigError("config_key_unknown", f"{path}: {name}")
        if name not in _SECTIONS:
            values[name] = value
        elif isinstance(value, dict):
            values |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            raise ConfigError("config_type_wrong", f"{path}: {name} is a section")
    for key in values:
        if key not in {*_TEXTS, *_NUMBERS, *_FLAGS, *_LISTS}:
            raise ConfigError("config_key_unknown", f"{path}: {key}")
    return values


def _read_environment(environment: Mapping[str, str], path: Path) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, key in ENVIRONMENT_KEYS.items():
        text = environment.get(name)
        if text is None:
            continue
        if key not in _NUMBERS:
            values[key] = text
        elif text.isascii() and text.isdecimal() and len(text) < 10:
            values[key] = int(text)
        else:
            raise ConfigError("config_type_wrong", f"{path}: {key} from {name} is a whole number")
    return values


def _check_text(key: str, value: object, path: Path) -> str:
    if not isinstance(value, str):
        raise ConfigError("config_type_wrong", f"{path}: {key} is a text")
    length_max = MONIKER_LENGTH_MAX if key == "moniker" else TEXT_LENGTH_MAX
    if not 0 < len(value) <= length_max or not value.isprintable():
        raise ConfigError("config_value_out_of_range", f"{path}: {key} has 1 to {length_max} printable characters")
    choices = {"log.level": LOG_LEVELS, "log.format": LOG_FORMATS}.get(key)
    if choices is not None and value not in choices:
        raise ConfigError("config_value_out_of_range", f"{path}: {key} is one of {', '.join(choices)}")
    return value


def _check_number(key: str, value: object, path: Path) -> int:
    if type(value) is not int:  # a bool is an int to isinstance
        raise ConfigError("config_type_wrong", f"{path}: {key} is a whole number")
    _, least, most = _NUMBERS[key]
    if not least <= value <= most:
        raise ConfigError("config_value_out_of_range", f"{path}: {key} is from {least} to {most}")
    return value


def _check_flag(key: str, values: Mapping[str, object], path: Path) -> bool:
    value = values.get(key, _FLAGS[key])
    if not isinstance(value, bool):
        raise ConfigError("config_type_wrong", f"{path}: {key} is true or false")
    return value


def _check_list(key: str, value: object, path: Path) -> list[object]:
    if not isinstance(value, list):
        raise ConfigError("config_type_wrong", f"{path}: {key} is a list")
    if len(value) > PEERS_MAX:
        raise ConfigError("config_value_out_of_range", f"{path}: {key} has at most {PEERS_MAX} entries")
    return value


def _parse_peers(value: object, path: Path) -> tuple[PeerConfig, ...]:
    peers = [_parse_peer(f"p2p.peers[{i}]", item, path) for i, item in enumerate(_check_list("p2p.peers", value, path))]
    if len({peer.public_key for peer in peers}) < len(peers):
        raise ConfigError("config_peer_twice", f"{path}: p2p.peers")
    return tuple(peers)


def _parse_peer(name: str, value: object, path: Path) -> PeerConfig:
    if not isinstance(value, dict):
        raise ConfigError("config_type_wrong", f"{path}: {name} is a table")
    for key in value:
        if key not in _PEER_KEYS:
            raise ConfigError("config_key_unknown", f"{path}: {name}.{key}")
    for key in sorted(_PEER_KEYS):
        if key not in value:
            raise ConfigError("config_key_missing", f"{path}: {name}.{key}")
    host, port = _check_text(f"{name}.host", value["host"], path), value["port"]
    if type(port) is not int:
        raise ConfigError("config_type_wrong", f"{path}: {name}.port is a whole number")
    if not 0 < port <= 65_535:
        raise ConfigError("config_value_out_of_range", f"{path}: {name}.port is from 1 to 65535")
    return PeerConfig(_parse_public_key(f"{name}.public_key", value["public_key"], path), host, port)


def _parse_allowed(value: object, path: Path) -> tuple[PublicKey, ...]:
    items = _check_list("p2p.allowed", value, path)
    return tuple(_parse_public_key(f"p2p.allowed[{i}]", item, path) for i, item in enumerate(items))


def _parse_texts(
    key: str, form: re.Pattern[str], reason: str, values: Mapping[str, object], path: Path
) -> frozenset[str]:
    items = _check_list(key, values.get(key, []), path)
    for i, item in enumerate(items):
        if not isinstance(item, str) or not form.fullmatch(item):
            raise ConfigError(reason, f"{path}: {key}[{i}]")
    return frozenset(map(str, items))


def _parse_keep_for(value: object, path: Path) -> tuple[Address, ...]:
    addresses = []
    for item in _check_list("documents.keep_for", value, path):
        try:
            addresses.append(parse_address(item if isinstance(item, str) else ""))
        except Malformed:
            raise ConfigError("config_address_invalid", f"{path}: documents.keep_for: {ascii(item)[:100]}") from None
    return tuple(addresses)


def _parse_public_key(name: str, value: object, path: Path) -> PublicKey:
    try:
        key = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES or key.hex() != value:
        raise ConfigError("config_public_key_invalid", f"{path}: {name} is 64 lower-case hexadecimal digits")
    return PublicKey(key)


def _shorten(path: Path, home: Path) -> str:
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a printable text has the same form in JSON and in TOML
