"""A test network on this machine: one home and one process per validator, and a ready key for each role.

Touches the world (files, processes, ports). It signals only processes that run on its own homes: a pid whose command
line is not that of the home's node is somebody else's, and left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Final

from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator, write_genesis
from ledger.parameters import Parameters
from node.config import NodeConfig, PeerConfig, make_config, write_config
from node.errors import LocalError, get_disk_reason
from node.files import write_replacing
from node.forks import FORK_SEEN
from node.keystore import KEY_FILE_SUFFIX, SigningKey, load_signing_key, save_key_unencrypted
from node.readiness import HOST, READY, ask_readiness

VALIDATORS_MAX: Final = 16  # on one machine
VALIDATORS_DEFAULT: Final = 4
BASE_PORT_DEFAULT: Final = 8600
BLOCK_MS_DEFAULT: Final = 500
HEARTBEAT_MS: Final = 5_000
FREE_PORTS: Final = (15_000, 32_000)
FORMAT: Final = "wattprint-testnet-1"
DESCRIPTION_NAME: Final = "testnet.json"
DESCRIPTION_BYTES_MAX: Final = 64 * 1024
GENESIS_NAME: Final = "genesis.json"
KEYRING_NAME: Final = "keyring"
LOG_NAME: Final = "node.log"
PID_NAME: Final = "node.pid"
NODE_MODULE: Final = "node.launch"
CREDIT_LIMIT_CENTS: Final = 10**12
READY_TIMEOUT_MS: Final = 60_000
STOP_TIMEOUT_MS: Final = 10_000
POLL_MS: Final = 20
LOG_TAIL_BYTES: Final = 2_000

# Recorded years of real meters are played here: their energy must not be past its lifetime when it is minted.
PARAMETERS: Final = Parameters(lot_lifetime_s=10**10)

# name of the key file → roles, and whether it may issue credits
KEYRING: Final[dict[str, tuple[tuple[str, ...], int]]] = {
    "admin": (("admin",), 0),
    "utility": (("utility",), CREDIT_LIMIT_CENTS),
    "utility2": (("utility",), CREDIT_LIMIT_CENTS),
    "auditor": (("auditor",), 0),
    "fulfilment": (("fulfilment",), 0),
    "oracle": (("oracle",), 0),
    "measurement_body": (("measurement_body",), 0),
    "investor": (("investor",), 0),
    "institution": (("institution",), 0),
    "consumer": (("consumer",), 0),
    "consumer2": (("consumer",), 0),
    "prosumer": (("prosumer",), 0),
    "prosumer2": (("prosumer",), 0),
}


class TestnetError(LocalError):
    """The test network cannot be made, found, started or stopped.

    Reasons: ``testnet_missing``, ``testnet_exists``, ``testnet_not_usable``, ``testnet_running``, ``port_taken``,
    ``node_unknown``, ``node_not_running``, ``node_running``, ``node_ended_at_start``, ``node_not_ready_in_time``,
    ``count_out_of_range``, ``disk_full``, ``permission_missing``.
    """

    __test__ = False  # no test case, though its name begins like one


@dataclass(frozen=True, slots=True)
class Launch:
    """How a node is started: of which release, and ``through`` which command, e.g. ``ip netns exec NAME``."""

    release: Path = Path(__file__).resolve().parent.parent  # where its packages are
    through: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node as ``testnet status`` tells it. ``pid`` None: not running."""

    index: int
    home: Path
    pid: int | None
    rpc_url: str
    p2p_port: int


class Testnet:
    """A test network in a directory. ``create`` or ``open`` one; the processes outlive this object until ``stop``."""

    __test__ = False

    def __init__(self, directory: Path, rpc_ports: Sequence[int], p2p_ports: Sequence[int]) -> None:
        self.directory = directory
        self._rpc_ports = tuple(rpc_ports)
        self._p2p_ports = tuple(p2p_ports)
        self.launches: dict[int, Launch] = {}  # index → how that node is started from now on, if not as this program
        self._children: dict[int, int] = {}  # index → pid of those that this object started, to be reaped

    # — making and finding —

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        validators: int = VALIDATORS_DEFAULT,
        block_ms: int = BLOCK_MS_DEFAULT,
        base_port: int = BASE_PORT_DEFAULT,
        chain_id: str = "",
        parameters: Parameters | None = None,
        extra_participants: Sequence[GenesisParticipant] = (),
    ) -> Testnet:
        """Write the homes, the genesis document and the keyring. ``base_port`` 0: any free ports.

        Raises ``TestnetError``; nothing in ``directory`` is replaced.
        """
        directory = directory.absolute()
        if not 1 <= validators <= VALIDATORS_MAX:
            raise TestnetError("count_out_of_range", f"{validators} validators, 1 to {VALIDATORS_MAX} are possible")
        if directory.exists() and any(directory.iterdir()):
            raise TestnetError("testnet_exists", directory)
        if base_port and not 1_024 <= base_port <= 65_535 - 2 * validators:
            raise TestnetError("count_out_of_range", f"base port {base_port}")
        ports = (
            find_free_ports(2 * validators) if base_port == 0 else list(range(base_port, base_port + 2 * validators))
        )
        net = cls(directory, ports[::2], ports[1::2])
        try:
            members = net._write_keyring()
            keys = [SigningKey.generate() for _ in range(validators)]
            now_ms = time.time_ns() // 1_000_000
            document = GenesisDocument(
                chain_id=chain_id or f"testnet-{now_ms // 1_000:x}",
                time_ms=now_ms,
                validators=tuple(GenesisValidator(key.public_key, f"node{i}") for i, key in enumerate(keys)),
                participants=(*members, *extra_participants),
                parameters=parameters or PARAMETERS,
            )
            for index in range(validators):
                net._write_home(index, keys, document, block_ms=block_ms)
            net._write_json(net.genesis_path, write_genesis(document))
            description = {"format": FORMAT, "rpc_ports": net._rpc_ports, "p2p_ports": net._p2p_ports}
            net._write_json(directory / DESCRIPTION_NAME, description)
        except OSError as error:
            reason = get_disk_reason(error, otherwise="testnet_not_usable")
            raise TestnetError(reason, f"{directory}: {error.strerror}") from error
        return net

    @classmethod
    def open(cls, directory: Path) -> Testnet:
        """A network that was made before. Raises ``TestnetError``."""
        directory = directory.absolute()
        path = directory / DESCRIPTION_NAME
        try:
            data = json.loads(path.read_bytes()[:DESCRIPTION_BYTES_MAX])
            rpc_ports, p2p_ports = data["rpc_ports"], data["p2p_ports"]
            if data["format"] != FORMAT or not all(type(port) is int for port in (*rpc_ports, *p2p_ports)):
                raise TestnetError("testnet_not_usable", path)
        except FileNotFoundError:
            raise TestnetError("testnet_missing", f"{directory}: make one with `wattprint testnet start`") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise TestnetError("testnet_not_usable", path) from None
        return cls(directory, rpc_ports, p2p_ports)

    @classmethod
    def exists(cls, directory: Path) -> bool:
        """Whether a network was made in this directory."""
        return (directory / DESCRIPTION_NAME).exists()

    # — what there is —

    @property
    def count(self) -> int:
        """How many validators it has."""
        return len(self._rpc_ports)

    @property
    def urls(self) -> list[str]:
        """Where each node answers JSON-RPC."""
        return [self.get_url(index) for index in range(self.count)]

    def get_url(self, index: int) -> str:
        """Where a node answers JSON-RPC."""
        return f"http://{HOST}:{self._rpc_ports[index]}"

    def get_home(self, index: int) -> Path:
        """A node's home directory."""
        return self.directory / f"node{index}"

    def get_key_path(self, name: str) -> Path:
        """The key file of a member of the keyring, e.g. ``utility``."""
        return self.directory / KEYRING_NAME / (name + KEY_FILE_SUFFIX)

    @property
    def genesis_path(self) -> Path:
        """The genesis document that all nodes started from."""
        return self.directory / GENESIS_NAME

    def list_keys(self) -> list[str]:
        """The names of the members of the keyring."""
        return [
            path.name.removesuffix(KEY_FILE_SUFFIX)
            for path in self.get_key_path("x").parent.glob("*" + KEY_FILE_SUFFIX)
        ]

    def load_key(self, name: str) -> SigningKey:
        """The key of a member of the keyring."""
        return load_signing_key(self.get_key_path(name))

    def list_nodes(self) -> list[NodeState]:
        """Every node, and the process that runs it."""
        return [
            NodeState(i, self.get_home(i), self.find_pid(i), self.get_url(i), self._p2p_ports[i])
            for i in range(self.count)
        ]

    def find_pid(self, index: int) -> int | None:
        """The process that runs a node now, or None."""
        child = self._children.get(index)
        if child is not None:
            if not has_ended(child):
                return child
            del self._children[index]
            return None
        try:
            pid = int((self.get_home(index) / PID_NAME).read_text())
        except (OSError, ValueError):
            return None
        return pid if is_node_process(pid, self.get_home(index)) else None

    # — starting and stopping —

    async def start(self, *, timeout_ms: int = READY_TIMEOUT_MS) -> None:
        """Start every node that does not run; wait until all are ready or know of a fork. Raises ``TestnetError``."""
        starting = [index for index in range(self.count) if self.find_pid(index) is None]
        for index in starting:
            self._check_ports(index)
        for index in starting:
            self._spawn(index)
        await self.wait_ready(timeout_ms=timeout_ms)

    async def wait_ready(self, indices: Sequence[int] | None = None, *, timeout_ms: int = READY_TIMEOUT_MS) -> None:
        """Return when these nodes (all, if None) are ready, or know of a fork. Raises ``TestnetError``."""
        wanted = range(self.count) if indices is None else indices
        until = asyncio.get_running_loop().time() + timeout_ms / 1_000
        await asyncio.gather(*(self._wait_ready(index, until) for index in wanted))

    def kill(self, index: int) -> int:
        """End a node at once (SIGKILL), as a power cut would. Gives the pid. Raises ``TestnetError``."""
        self._check_index(index)
        pid = self.find_pid(index)
        if pid is None:
            raise TestnetError("node_not_running", f"node{index}")
        os.kill(pid, signal.SIGKILL)
        self._wait_gone(index, pid, timeout_ms=STOP_TIMEOUT_MS)
        return pid

    async def restart(self, index: int, *, timeout_ms: int = READY_TIMEOUT_MS) -> int:
        """Start a node, stopping it first if it runs; returns its pid when it is ready."""
        self._check_index(index)
        pid = self.find_pid(index)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            await asyncio.to_thread(self._wait_gone, index, pid, timeout_ms=STOP_TIMEOUT_MS)
        self._check_ports(index)
        pid = self._spawn(index)
        await self.wait_ready([index], timeout_ms=timeout_ms)
        return pid

    async def stop(self, *, timeout_ms: int = STOP_TIMEOUT_MS) -> list[int]:
        """End every node, orderly (SIGTERM) or, when its time is up, by force: the indices of those that ran."""
        return await asyncio.to_thread(self.stop_now, timeout_ms=timeout_ms)

    def stop_now(self, *, timeout_ms: int = STOP_TIMEOUT_MS) -> list[int]:
        """As ``stop``, for a caller without an event loop."""
        running = [(index, pid) for index in range(self.count) if (pid := self.find_pid(index)) is not None]
        for _, pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + timeout_ms / 1_000
        for index, pid in running:
            left_ms = max(0, int((until - time.monotonic()) * 1_000))
            self._wait_gone(index, pid, timeout_ms=left_ms)
        return [index for index, _ in running]

    def remove(self) -> None:
        """Delete the directory of a network that is stopped. Raises ``TestnetError`` (``testnet_running``)."""
        if any(node.pid is not None for node in self.list_nodes()):
            raise TestnetError("testnet_running", self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    # — inside —

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise TestnetError("node_unknown", f"{index}: there are 0 to {self.count - 1}")

    def _check_ports(self, index: int) -> None:
        """A taken port is told before the node starts, with its number, rather than by the node's log."""
        is_elsewhere = bool(self.launches.get(index, Launch()).through)  # where other ports may be free
        for port in (self._rpc_ports[index], self._p2p_ports[index]):
            if not is_elsewhere and not is_port_free(port):
                raise TestnetError("port_taken", f"{port}, which node{index} needs; choose another --base-port")

    def _spawn(self, index: int) -> int:
        home, launch = self.get_home(index), self.launches.get(index, Launch())
        paths = [str(launch.release), *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: what lies in the directory where somebody types the command is not taken for a package of ours.
        command = [*launch.through, sys.executable, "-P", "-m", NODE_MODULE, str(home)]
        try:
            log = os.open(home / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                pid = os.posix_spawnp(
                    command[0],
                    command,
                    make_environment() | {"PYTHONPATH": os.pathsep.join(paths)},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, log, 1),
                        (os.POSIX_SPAWN_DUP2, log, 2),
                    ],
                    setsid=True,  # Ctrl-C in the terminal is for us; we stop the nodes in order
                )
            finally:
                os.close(log)
            (home / PID_NAME).write_text(f"{pid}\n")
        except OSError as error:
            raise TestnetError("testnet_not_usable", f"{home}: {error.strerror}") from error
        self._children[index] = pid
        return pid

    async def ask_readiness(self, index: int) -> str:
        """Whether a node is ready, or why not (see ``readiness.py``)."""
        return await ask_readiness(self._rpc_ports[index])

    async def _wait_ready(self, index: int, until: float) -> None:
        clock = asyncio.get_running_loop().time
        # What follows from a fork is for people to decide: there is nothing to wait for.
        while await self.ask_readiness(index) not in {READY, FORK_SEEN}:
            if self.find_pid(index) is None:
                raise TestnetError("node_ended_at_start", f"node{index}: {self._read_log_end(index)}")
            if clock() >= until:
                raise TestnetError("node_not_ready_in_time", f"node{index}: {self._read_log_end(index)}")
            await asyncio.sleep(POLL_MS / 1_000)

    def _wait_gone(self, index: int, pid: int, *, timeout_ms: int) -> None:
        """Returns when the process is gone; after ``timeout_ms`` it is ended by force."""
        until = time.monotonic() + timeout_ms / 1_000
        is_forced = False
        while self.find_pid(index) == pid:
            if time.monotonic() >= until and not is_forced:
                is_forced = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_MS / 1_000)  # it may be no child of ours: nothing tells when it ends
        (self.get_home(index) / PID_NAME).unlink(missing_ok=True)

    def _read_log_end(self, index: int) -> str:
        """The last line of a node's log, which says why it ended."""
        try:
            data = (self.get_home(index) / LOG_NAME).read_bytes()[-LOG_TAIL_BYTES:]
        except OSError:
            return "no log"
        lines = data.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def _write_keyring(self) -> list[GenesisParticipant]:
        members = []
        for name, (roles, limit_cents) in KEYRING.items():
            key = SigningKey.generate()
            save_key_unencrypted(self.get_key_path(name), key)
            members.append(GenesisParticipant(key.public_key, name, roles, limit_cents))
        return members

    def _write_home(
        self, index: int, keys: Sequence[SigningKey], document: GenesisDocument, *, block_ms: int
    ) -> NodeConfig:
        config = make_config(self.get_home(index))
        peers = [PeerConfig(key.public_key, HOST, self._p2p_ports[i]) for i, key in enumerate(keys) if i != index]
        config = replace(
            config,
            moniker=f"node{index}",
            rpc_host=HOST,
            rpc_port=self._rpc_ports[index],
            p2p_host=HOST,
            p2p_port=self._p2p_ports[index],
            peers=tuple(peers),
            block_interval_ms=block_ms,
            heartbeat_ms=max(HEARTBEAT_MS, block_ms),
        )
        save_key_unencrypted(config.key_file, keys[index])
        self._write_json(config.genesis_file, write_genesis(document))
        write_config(config)
        return config

    def _write_json(self, path: Path, document: object) -> None:
        write_replacing(path, (json.dumps(document, indent=2) + "\n").encode(), mode=0o644)


def find_free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below those from which the system takes the ports of outgoing connections."""
    chance = SystemRandom()
    found: list[int] = []
    for port in chance.sample(range(*FREE_PORTS), FREE_PORTS[1] - FREE_PORTS[0]):
        if len(found) == count:
            break
        if is_port_free(port):
            found.append(port)
    if len(found) < count:
        raise TestnetError("port_taken", f"fewer than {count} free ports from {FREE_PORTS[0]} to {FREE_PORTS[1]}")
    return found


def is_port_free(port: int) -> bool:
    """Whether a node could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def has_ended(child: int) -> bool:
    """Whether a child process of ours has ended; reaps it."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def is_node_process(pid: int, home: Path) -> bool:
    """Whether a process is alive and is the one that runs the node of this home."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        # Without /proc: the process exists, and somebody holds the home's journal as a running node does.
        return not Path("/proc/self").exists() and _exists(pid) and _is_locked(home / "chain" / "journal")
    return NODE_MODULE.encode() in command and os.fsencode(home) in command


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def make_environment() -> dict[str, str]:
    """This process's environment without what would override the homes' own configuration."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WATTPRINT_")}
