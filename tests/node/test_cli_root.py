"""The root of the command line: options before the command, names that are not there, what a shell completes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from ledger.primitives import format_address
from node.cli.app import app
from node.client import Client
from node.keystore import SigningKey, save_key_unencrypted
from tests.node.fake_node import FakeNode

ALICE = format_address(SigningKey.from_seed(b"a" * 32).address)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


class Asked(FakeNode):
    """Remembers which node was asked."""

    urls: list[str]

    def make_client(self, url: str) -> Client:
        self.urls = [*getattr(self, "urls", []), url]
        return super().make_client(url)


def complete(*words: str) -> list[str]:
    *before, last = words
    return [one.value for one in ShellComplete(app, {}, "wattprint", "").get_completions(list(before), last)]


class Interrupting:
    """Ctrl-C while the program is still being read."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "node.cli.app":
            raise KeyboardInterrupt


def test_ctrl_c_before_the_program_is_read_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "node.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        importlib.reload(sys.modules["node.cli"])
    assert ended.value.code == 130


def test_json_may_stand_before_the_command(node: FakeNode) -> None:
    node.answers["site_list"] = {"sites": [], "next_cursor": None}
    before = node.run("--json", "site", "list")
    assert json.loads(before.stdout) == node.run_json("site", "list")
    assert json.loads(node.run("--json", "key", "list", ".").stdout) == {"keys": []}


def test_the_nearest_word_on_which_node_counts() -> None:
    node = Asked()
    env = {"WATTPRINT_NODE": "http://env"}
    node.run("chain", "status", env=env)
    node.run("--node", "http://root", "chain", "status", env=env)
    node.run("--node", "http://root", "chain", "status", "--node", "http://own", env=env)
    assert node.urls == ["http://env", "http://root", "http://own"]


def test_a_key_before_the_command_signs(node: FakeNode, tmp_path: Path) -> None:
    key = SigningKey.from_seed(b"a" * 32)
    path = tmp_path / "alice.key.json"
    save_key_unencrypted(path, key)
    result = node.run("--key", path, "credit", "transfer", "--recipient", ALICE, "--amount-cents", "5")
    assert result.exit_code == 0, result.output
    assert node.submitted[0].sender == key.address


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "There are: audit, bench, bill, "),
        (["credit", "nonsense"], "There are: balance, confirm-payout, "),
        (["site", "show"], "Missing argument 'SITE'."),
        (["tx", "get"], "Missing argument 'TX_ID'."),
        (["--key", "/no/such/file", "chain", "status"], "does not exist"),
        (["--json"], "Missing command."),
    ],
)
def test_a_mistake_says_what_there_is(node: FakeNode, words: list[str], said: str) -> None:
    result = node.run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_credits_can_be_shown_and_listed(node: FakeNode) -> None:
    node.answers["credit_balance"] = {"holder": ALICE, "balance_cents": 7, "issuer": None}
    node.answers["redemption_list"] = {"redemptions": [{"redemption": "ab"}], "next_cursor": None}
    assert node.run_json("credit", "show", ALICE) == node.run_json("credit", "balance", ALICE)
    assert node.run_json("credit", "list") == node.run_json("redemption", "list")


def test_help_is_for_people_who_read_no_python(node: FakeNode) -> None:
    for words in (["bill", "--help"], ["bill", "show", "--help"], ["energy", "balance", "--help"]):
        shown = node.run(*words).stdout
        assert "Raises" not in shown
        assert "``" not in shown


def test_a_shell_completes_commands_choices_and_files() -> None:
    assert complete("tes") == ["testnet"]
    assert complete("testnet", "st") == ["start", "status", "stop"]
    assert "--node" in complete("chain", "status", "--")
    assert complete("participant", "list", "--role", "a") == ["admin", "auditor"]
    files = ShellComplete(app, {}, "wattprint", "").get_completions(["credit", "balance"], "al")
    assert [(one.type, one.value) for one in files] == [("file", "al")]


def test_a_transaction_that_waits_is_named_with_the_command_that_waits_for_it(node: FakeNode) -> None:
    node.answers["tx_get"] = {"status": "pending"}
    late = node.run("tx", "wait", "ab" * 32, "--timeout-ms", "1")
    assert late.exit_code == 1
    assert late.stderr == (
        f"wattprint: transaction_not_yet_committed: it may still be, see wattprint tx wait {'ab' * 32}\n"
    )
