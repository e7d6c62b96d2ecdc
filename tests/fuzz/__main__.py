"""The targets under a fuzzer that is guided by coverage: `python -m tests.fuzz --target wire --seconds 60`.

Owns the command. Each target runs in a process of its own (libFuzzer ends its process), one after the other; what it
learned is kept in build/fuzz and used again. A finding is a file there, which ``--replay`` shows to its target again.
Nothing of the program is imported here before the instruments are in place.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from tests.fuzz.target import Target

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("ledger", "contracts_native", "consensus", "p2p", "node")
# Whose branches guide the search; to follow all others as well would only be slow.
DECODERS: Final = frozenset(
    {
        *("ledger.encoding", "ledger.fields", "ledger.primitives", "ledger.transaction", "ledger.block"),
        *("ledger.genesis", "ledger.merkle", "ledger.state_root", "contracts_native.genesis"),
        *("consensus.codec", "consensus.journal", "consensus.light_client"),
        *("p2p.messages", "p2p.session", "p2p.tls"),
        *("node.journal", "node.jsonrpc", "node.methods", "node.subscriptions", "node.rpc_gate", "node.client_forms"),
        *("node.launch", "node.config", "node.keystore"),
        *("node.snapshots", "node.snapshot_verifier", "node.snapshot_files"),
    }
)
DECODER_PACKAGES: Final = ("node.certificates.", "node.documents.", "node.meter_files.")
DIRECTORY: Final = ROOT / "build" / "fuzz"
SECONDS: Final = 60
INPUT_SECONDS_MAX: Final = 10  # of one input; the instruments cost about five times the time
MEMORY_MB_MAX: Final = 1_024
OWN_MUTATIONS: Final = 0.5  # of all; the others are libFuzzer's
LOG_LETTERS: Final = 4_000  # of a finding
_COUNT: Final = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
_COVERED: Final = re.compile(r"cov: ([0-9]+)")


def main() -> int:
    """Run the targets that were asked for. 0: no finding; 1: one at least; 2: wrong usage, or no fuzzer here."""
    arguments = read_arguments()
    if arguments.replay is None and importlib.util.find_spec("atheris") is None:
        say("atheris is not installed: `make fuzz` installs it, or pip install -r requirements-fuzz.txt")
        return 2
    targets = load_targets(with_instruments=arguments.replay is None)
    unknown = [name for name in arguments.target if name not in targets]
    if unknown or (arguments.replay is not None and len(arguments.target) != 1):
        say(f"--target is one of {', '.join(targets)}; --replay needs exactly one")
        return 2
    if arguments.replay is not None:
        reason = load_module("tests.fuzz.target").take(targets[arguments.target[0]], arguments.replay.read_bytes())
        say(f"refused: {reason}" if reason else "taken")
        return 0
    return max([run(targets[name], arguments.seconds) for name in arguments.target or targets])


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", action="append", default=[], help="may be repeated; without it all of them")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for each target, {SECONDS} without it")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a finding of the one target, without the fuzzer")
    return parser.parse_args()


def load_targets(*, with_instruments: bool) -> Mapping[str, Target]:
    """Every target; with instruments in the decoders where the fuzzer is to follow their branches."""
    if not with_instruments:
        return _get_targets()
    atheris = load_module("atheris")
    others = [name for name in list_modules() if name not in DECODERS and not name.startswith(DECODER_PACKAGES)]
    with atheris.instrument_imports(include=PACKAGES, exclude=others):
        return _get_targets()


def _get_targets() -> Mapping[str, Target]:
    targets: Mapping[str, Target] = load_module("tests.fuzz.targets").TARGETS
    return targets


def load_module(name: str) -> Any:
    """A module that is loaded late: with instruments, or only where it is installed."""
    return importlib.import_module(name)


def list_modules() -> list[str]:
    """Every module of the program by its name."""
    files = [path.relative_to(ROOT).with_suffix("") for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def run(target: Target, seconds: int) -> int:
    """Run one target to its end; a line of what it did, and a finding in full. 1 if there is one."""
    log = DIRECTORY / f"{target.name}.log"
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        fuzz(target, seconds)
    _, status = os.waitpid(process, 0)
    said = log.read_text(errors="replace")
    count, covered = _COUNT.search(said), _COVERED.findall(said)
    executions = int(count[1]) if count else 0
    took_s = time.monotonic() - began
    branches = covered[-1] if covered else "no"
    finding = f": a FINDING, see {log}\n{said[-LOG_LETTERS:]}" if status else "  no finding"
    say(f"{target.name:20} {took_s:6.0f} s {executions:11,} runs {branches:>6} branches{finding}")
    return 1 if status else 0


def fuzz(target: Target, seconds: int) -> NoReturn:
    """Hand over to libFuzzer, which ends the process."""
    atheris, form = load_module("atheris"), load_module("tests.fuzz.target")
    mutate = load_module("tests.fuzz.mutation").mutate
    seeds = target.seeds()
    corpus, findings = DIRECTORY / target.name, DIRECTORY / "findings"
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def change(data: bytes, bytes_max: int, number: int) -> bytes:
        random = Random(number)
        changed = mutate(data, random, seeds) if random.random() < OWN_MUTATIONS else atheris.Mutate(data, bytes_max)
        return bytes(changed)[:bytes_max]

    def test(data: bytes) -> None:
        form.take(target, data)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={form.DATA_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-artifact_prefix={findings}/{target.name}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test, custom_mutator=change)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
