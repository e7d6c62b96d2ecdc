"""The tree of commands: written ones, one per transaction, one per question to a node.

Owns how the tree is put together and what each kind of failure becomes: one line on stderr and an exit status. A new
payload or a new JSON-RPC method is a new command without a change here; a new group is one file in ``groups/``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Final

import click

from contracts_native.table import load_table
from ledger.errors import CorruptStore, Malformed, Rejected
from node.cli import groups
from node.cli.derive import make_transaction_command, make_verb
from node.cli.options import make_root_options
from node.cli.reads import list_read_groups, list_reads, make_read_command
from node.client_errors import NodeUnreachable, NotYetCommitted, RpcError
from node.errors import LocalError
from node.jsonrpc import INVALID_PARAMS
from node.version import VERSION

DONE: Final = 0
REFUSED: Final = 1
WRONG_USAGE: Final = 2
NO_NODE: Final = 3
INTERRUPTED: Final = 130  # what a shell expects of a program that Ctrl-C ended

_HELP: Final = """Who bought this green energy, and where did a buyer's energy come from?

Every command has --json (one JSON document on stdout). Those that ask a node have --node URL (or WATTPRINT_NODE, and
WATTPRINT_TOKEN where the node wants one), those that sign have --key FILE (or WATTPRINT_KEY, and WATTPRINT_PASSPHRASE).
These three may stand before the command's name as well.

\b
A first walk:
  wattprint testnet start --detach --directory testnet
  export WATTPRINT_KEY=testnet/keyring/utility.key.json
  wattprint credit issue --holder testnet/keyring/consumer.key.json \\
      --amount-cents 5000 --payment-reference bank-1
  wattprint credit balance testnet/keyring/consumer.key.json
  wattprint testnet stop --directory testnet

Exit status: 0 done, 1 refused by the ledger (the reason is on stderr), 2 wrong usage, 3 no node answered.

Completion in bash (or zsh, fish):  eval "$(_WATTPRINT_COMPLETE=bash_source wattprint)"
"""


# What a group is about that nobody wrote by hand.
_GROUPS: Final = {
    "bill": "Bills: invoices for metered energy, their payments, disputes and credit notes.",
    "credit": "Credits: the utility token that pays for energy; money in, transfers, money out.",
    "escrow": "Deposits: security that a utility holds and the ledger gives back when nothing is due.",
    "governance": "Govern the network: proposals, votes, and what was proven of validators.",
    "lot": "Lots: the watt-hours that one production interval of one meter minted.",
    "movement": "Movements: what moved, used, reserved or withdrew energy, in the order of the chain.",
    "offer": "Offers: energy against credits, both at once or neither.",
    "proof": "Proofs of what is on the chain, for whoever trusts no node.",
    "redemption": "Redemptions: credits on their way to be paid out as money.",
    "site": "Sites: places that produce, store or consume energy.",
    "storage": "Storage: what a battery was charged with.",
}


class Wattprint(click.Group):
    """The root. A group's file is only imported when it is asked for, so that a node starts lean."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx  # the tree is the same everywhere
        families = {tag.partition(".")[0] for tag in load_table().payloads}
        return sorted(families | _list_written() | list_read_groups())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        return make_group(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; a mistake before the name of a command is one line too."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            ctx.exit(_explain_usage(error))

    def invoke(self, ctx: click.Context) -> None:
        """As click's, but every failure is one line and one of our exit statuses."""
        ctx.exit(_run(lambda: super(Wattprint, self).invoke(ctx)))


def make_group(name: str) -> click.Command | None:
    """A group with its written commands, then those of its transactions and questions that nobody wrote by hand."""
    written = _find_written(name)
    if written is not None and not isinstance(written, click.Group):
        return written
    tags = {tag: kind for tag, kind in load_table().payloads.items() if tag.partition(".")[0] == name}
    reads = list_reads(name)
    if written is None and not tags and not reads:
        return None
    group = written or click.Group(name, help=_GROUPS[name])
    for tag, kind in tags.items():
        verb = make_verb(tag)
        if verb not in group.commands:
            group.add_command(make_transaction_command(tag, kind), verb)
    for verb, method in reads.items():
        if verb not in group.commands:
            group.add_command(make_read_command(method), verb)
    return group


def _list_written() -> set[str]:
    return {info.name for info in pkgutil.iter_modules(groups.__path__)}


def _find_written(name: str) -> click.Command | None:
    if name not in _list_written():
        return None
    command = importlib.import_module(f"{groups.__name__}.{name}").command
    assert isinstance(command, click.Command)
    return command


def _run(work: Callable[[], object]) -> int:
    """Run a command; what goes wrong becomes a line and an exit status, never a traceback."""
    try:
        work()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        return _explain_usage(error)
    except click.ClickException as error:
        return _say(error.format_message(), WRONG_USAGE)
    except click.Abort:
        return _say("interrupted", INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except NodeUnreachable as error:
        return _say(str(error), NO_NODE)
    except NotYetCommitted as error:
        later = f": it may still be, see wattprint tx wait {error.tx_id}" if error.tx_id else ""
        return _say(f"{error.reason or error}{later}", REFUSED)
    except RpcError as error:
        return _say(str(error), WRONG_USAGE if error.code == INVALID_PARAMS else REFUSED)
    except (LocalError, Malformed, CorruptStore) as error:
        return _say(str(error), WRONG_USAGE)
    except Rejected as error:
        return _say(str(error), REFUSED)
    except BrokenPipeError:  # `wattprint … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        return _say(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), WRONG_USAGE)
    return DONE


def _explain_usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group without a command: its help
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    if isinstance(error, click.exceptions.NoSuchCommand) and error.ctx is not None:
        group = error.ctx.command
        assert isinstance(group, click.Group)
        where = f" There are: {', '.join(group.list_commands(error.ctx))}" + where
    return _say(error.format_message() + where, WRONG_USAGE)


def _say(text: str, status: int) -> int:
    click.echo(f"wattprint: {' '.join(text.split())}", err=True)
    return status


app = Wattprint(
    "wattprint",
    help=_HELP,
    params=make_root_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
click.version_option(VERSION, prog_name="wattprint", message="%(prog)s %(version)s")(app)
