"""The command line's promises: commands derive from the tables, failures are one line, JSON is one document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from contracts_native.credits import TransferCredits
from contracts_native.lots import TransferEnergy
from contracts_native.meters import Channel, ChannelSpec, RegisterMeter
from contracts_native.participants import RegisterParticipant, Role, make_possession_message
from contracts_native.sites import RegisterSite, Technology
from contracts_native.table import load_table
from ledger.fields import Json, get_field_types
from ledger.primitives import PublicKey, format_address, is_valid_ed25519
from ledger.state import State
from ledger.transaction import ANYONE, Payload, TxContext, transaction
from node.cli.app import app, make_group
from node.cli.derive import make_transaction_command, make_verb
from node.cli.reads import NOT_COMMANDS
from node.client import Refused, RpcError, UnknownItem
from node.jsonrpc import INVALID_PARAMS
from node.keystore import MeterSigningKey, load_signing_key, save_key_unencrypted
from node.rpc_methods import METHODS
from tests.node.fake_node import CHAIN_ID, HEIGHT, FakeNode, get_one, make_key_file


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


# — deriving —


@pytest.mark.parametrize("tag", sorted(load_table().payloads))
def test_every_transaction_is_a_command_that_explains_itself(node: FakeNode, tag: str) -> None:
    result = node.run(tag.partition(".")[0], make_verb(tag), "--help")
    assert result.exit_code == 0
    assert "--key FILE" in result.stdout
    assert "--json" in result.stdout


@pytest.mark.parametrize("method", sorted(name for name in METHODS if "." not in name and name not in NOT_COMMANDS))
def test_every_question_is_a_command(method: str) -> None:
    family, _, verb = method.partition("_")
    group = make_group(family)
    assert isinstance(group, click.Group)
    assert ("show" if verb == "get" and family != "tx" else verb.replace("_", "-")) in group.commands


def test_every_command_has_help_and_json() -> None:
    for name in app.list_commands(click.Context(app)):
        group = make_group(name)
        assert group is not None
        commands = group.commands if isinstance(group, click.Group) else {name: group}
        for verb, command in commands.items():
            options = {option for parameter in command.params for option in parameter.opts}
            assert command.get_short_help_str(), (name, verb)
            assert "--json" in options or (name, verb) == ("node", "start"), (name, verb)


@transaction("toy.lend", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class LendToy(Payload):
    """Lend a toy for a while."""

    toy: bytes
    key: bytes
    is_new: bool
    from_ms: int
    owners: tuple[tuple[str, int], ...]
    note: str

    def apply(self, state: State, tx: TxContext) -> None:
        raise NotImplementedError  # nobody runs it: only the command that derives from it is looked at


def test_a_new_payload_is_a_new_command_without_a_change_elsewhere() -> None:
    command = make_transaction_command("toy.lend", LendToy)
    shown = CliRunner().invoke(command, ["--help"]).stdout
    assert "Lend a toy for a while." in shown
    for option in ("--toy", "--toy-key", "--is-new", "--from-ms", "--owners", "--note", "--json-payload"):
        assert option in shown
    assert "wattprint toy lend --toy TOY" in shown


def test_options_become_the_payload_that_is_signed(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    other, other_key = make_key_file(tmp_path, "bob", 2)
    document = node.run_json("credit", "transfer", "--recipient", other, "--amount-cents", "1_000", "--key", path)
    tx = get_one(node.submitted)
    assert tx.payload == TransferCredits(other_key.address, 1_000, "")
    assert (tx.sender, tx.chain_id, tx.valid_until) == (key.address, CHAIN_ID, HEIGHT + 100)
    assert document["tx_id"] == tx.tx_id.hex()
    assert (document["status"], document["height"]) == ("committed", HEIGHT + 1)


def test_a_cosigner_signs_too_and_moments_and_key_files_are_read(node: FakeNode, tmp_path: Path) -> None:
    utility, _ = make_key_file(tmp_path, "utility", 1)
    owner, owner_key = make_key_file(tmp_path, "owner", 2)
    words = ["--owner", owner, "--technology", "solar", "--zone", "DE-1", "--capacity-w", "5000", "--label", "Roof"]
    node.run_json(
        *("site", "register", *words, "--commissioned-ms", "2016-06-06T01:00:00+01:00"),
        *("--key", utility, "--cosign", owner),
    )
    tx = get_one(node.submitted)
    assert tx.cosigners == (owner_key.address,)
    assert tx.payload == RegisterSite(
        owner_key.address, Technology.SOLAR, "DE-1", 5_000, "Roof", 1_465_171_200_000, design_document=None
    )


def test_a_repeated_object_is_typed_as_names_and_values_or_as_json(node: FakeNode, tmp_path: Path) -> None:
    path, _ = make_key_file(tmp_path, "utility", 1)
    meter = MeterSigningKey.from_seed(bytes([3] * 32), "p256")
    save_key_unencrypted(tmp_path / "meter.key.json", meter)
    node.run_json(
        *("meter", "register", "--site", "ab" * 16, "--serial", "m-1", "--commissioned-ms", "0"),
        *("--meter-key", tmp_path / "meter.key.json", "--key", path),
        *("--channels", "channel=production,capacity_w=5000,interval_s=900"),
        *("--channels", '{"channel": "consumption", "capacity_w": 600, "interval_s": 900}'),
    )
    assert get_one(node.submitted).payload == RegisterMeter(
        bytes.fromhex("ab" * 16),
        "m-1",
        meter.public_key,
        (ChannelSpec(Channel.PRODUCTION, 5_000, 900), ChannelSpec(Channel.CONSUMPTION, 600, 900)),
        0,
    )


def test_a_slice_is_typed_with_its_lot(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    words = ["--recipient", format_address(key.address), "--slices", f"lot={'ab' * 16}:900000:1,first_wh=0,end_wh=5"]
    node.run_json("energy", "transfer-slices", *words, "--key", path)
    payload = get_one(node.submitted).payload
    assert isinstance(payload, TransferEnergy)
    assert str(payload.slices[0]) == f"{'ab' * 16}:900000:1 [0, 5)"


@pytest.mark.parametrize("source", ["file", "-"])
def test_a_payload_comes_from_a_file_or_standard_input(node: FakeNode, tmp_path: Path, source: str) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    text = json.dumps({"recipient": format_address(key.address), "amount_cents": 5, "reference": "r"})
    (tmp_path / "payload.json").write_text(text)
    where = tmp_path / "payload.json" if source == "file" else "-"
    node.run_json("credit", "transfer", "--json-payload", where, "--key", path, stdin=text)
    assert get_one(node.submitted).payload == TransferCredits(key.address, 5, "r")


def test_simulate_submits_nothing(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    words = ["--recipient", format_address(key.address), "--amount-cents", "5", "--key", path, "--simulate"]
    assert node.run_json("credit", "transfer", *words)["status"] == "simulated"
    assert [method for method, _ in node.asked if method.startswith("tx_")] == ["tx_simulate"]


def test_no_wait_asks_for_admission_only(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    words = ["--recipient", format_address(key.address), "--amount-cents", "5", "--key", path, "--no-wait"]
    node.run_json("credit", "transfer", *words)
    assert node.asked[-1][1]["wait"] == "admitted"


# — failing —


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Refused("credits_not_sufficient", "5 of 7"), 1, "credits_not_sufficient: 5 of 7"),
        (
            UnknownItem(-32001, "not_found", {"reason": "participant_not_found", "item": "x"}),
            1,
            "participant_not_found",
        ),
        (RpcError(INVALID_PARAMS, "Invalid params", {"reason": "limit_out_of_range", "item": "0"}), 2, "limit_out_of"),
    ],
)
def test_an_error_of_the_node_is_one_line_and_its_status(
    node: FakeNode, tmp_path: Path, error: RpcError, status: int, said: str
) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    node.answers["tx_submit"] = error
    words = ["--recipient", format_address(key.address), "--amount-cents", "5", "--key", path, "--json"]
    result = node.run("credit", "transfer", *words)
    assert result.exit_code == status
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_no_node_is_status_three(node: FakeNode) -> None:
    node.is_there = False
    result = node.run("chain", "status", "--node", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert result.stderr == "wattprint: no node answers at http://127.0.0.1:9: connection refused\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nonsense"], "No such option '--nonsense'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["credit", "nonsense"], "No such command 'nonsense'"),
        (["credit", "transfer", "--nonsense"], "No such option"),
        (["credit", "transfer", "--recipient", "KEY", "--amount-cents", "5"], "Missing option '--key'"),
        (["credit", "transfer", "--key", "KEY"], "Missing option '--recipient'"),
        (["credit", "transfer", "--key", "/no/such/file"], "does not exist"),
        (["credit", "transfer", "--recipient", "wp1x"], "Invalid value for '--recipient': address_invalid"),
        (["credit", "transfer", "--amount-cents", "-5"], "number_out_of_range"),
        (["credit", "transfer", "--amount-cents", "1.5"], "expected an integer"),
        (["credit", "transfer", "--json-payload", "/no/such/file", "--key", "KEY"], "/no/such/file"),
        (["participant", "register", "--role", "king"], "'king' is not one of"),
        (["meter", "register", "--channels", "colour=red"], "field_unknown"),
        (["reading", "submit"], "Missing argument"),
        (["reading", "submit", "/no/such/file"], "does not exist"),
        (["tx", "decode", "zz"], "hex_invalid"),
        (["tx", "decode", "00"], "envelope_malformed"),
        (["node", "start", "--home", "/no/such/home"], "config_missing"),
        (["testnet", "status", "--directory", "/no/such/net"], "testnet_missing"),
        (["testnet", "start", "--validators", "0"], "Invalid value for '--validators'"),
        (["genesis", "show", "/no/such/file"], "does not exist"),
        (["key", "show", "BROKEN"], "key_file_damaged"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_two(
    node: FakeNode, tmp_path: Path, words: list[str], said: str
) -> None:
    path, _ = make_key_file(tmp_path, "alice", 1)
    (tmp_path / "broken.key.json").write_text("{")
    names = {"KEY": str(path), "BROKEN": str(tmp_path / "broken.key.json")}
    result = node.run(*(names.get(word, word) for word in words))
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.startswith("wattprint: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_group_alone_shows_its_help(node: FakeNode) -> None:
    result = node.run("credit")
    assert result.exit_code == 2
    assert "transfer" in result.stderr


# — asking —


def test_a_list_is_a_table_csv_or_json(node: FakeNode) -> None:
    rows = [{"site": "ab", "label": "Roof", "commissioned_ms": 1_465_171_200_000, "owner": None}]
    node.answers["site_list"] = {"sites": rows, "next_cursor": None}
    table = node.run("site", "list").stdout
    assert "2016-06-06T00:00:00Z" in table
    assert "next_cursor" not in table
    assert node.run("site", "list", "--csv").stdout == "site,label,commissioned_ms,owner\nab,Roof,1465171200000,\n"
    assert node.run_json("site", "list", "--zone", "DE-1")["sites"] == rows
    assert node.asked[-1] == ("site_list", {"zone": "DE-1"})


def test_all_follows_the_cursor(node: FakeNode) -> None:
    node.answers["site_list"] = {"sites": [{"site": "ab"}], "next_cursor": "01"}
    first = node.run("site", "list")
    assert "there is more" in first.stderr

    def answer(params: dict[str, Json]) -> Json:
        return {"sites": [{"site": str(params.get("cursor"))}], "next_cursor": None if "cursor" in params else "01"}

    node.answers["site_list"] = answer
    assert [row["site"] for row in node.run_json("site", "list", "--all")["sites"]] == ["None", "01"]


def test_the_usage_of_a_question_names_what_it_asks_for(node: FakeNode) -> None:
    assert "wattprint bill show [OPTIONS] BILL\n" in node.run("bill", "show", "--help").stdout
    assert "residual-mix [OPTIONS] ZONE\n" in node.run("energy", "residual-mix", "--help").stdout
    assert "participant show [OPTIONS] wp1…|KEYFILE\n" in node.run("participant", "show", "--help").stdout


def test_what_a_stranger_wrote_cannot_steer_the_terminal(node: FakeNode) -> None:
    node.answers["site_list"] = {"sites": [{"label": "\x1b[2Jroof"}], "next_cursor": None}
    assert "\x1b" not in node.run("site", "list").stdout
    node.answers["site_get"] = {"label": "\x1b[2Jroof\nstatus: approved", "owner": "wp1"}
    shown = node.run("site", "show", "ab" * 16).stdout.splitlines()
    assert [line.split() for line in shown] == [["label", "?[2Jroof?status:", "approved"], ["owner", "wp1"]]


# — keys, genesis, participants —


def test_keys_are_made_shown_listed_and_relocked(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    made = node.run_json("key", "new", path, env={"WATTPRINT_PASSPHRASE": "one"})
    assert made["encrypted"] is True
    assert node.run_json("key", "show", path) == made
    assert node.run_json("key", "list", tmp_path)["keys"] == [made]
    change = {"WATTPRINT_PASSPHRASE": "one", "WATTPRINT_NEW_PASSPHRASE": "two"}
    node.run_json("key", "change-passphrase", path, env=change)
    assert format_address(load_signing_key(path, "two").address) == made["address"]
    again = node.run("key", "new", path, env={"WATTPRINT_PASSPHRASE": "one"})
    assert (again.exit_code, "key_file_exists" in again.stderr) == (2, True)
    secretless = node.run("key", "new", tmp_path / "bob.key.json")
    assert (secretless.exit_code, "passphrase_missing" in secretless.stderr) == (2, True)


def test_a_genesis_document_grows_step_by_step(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "node-a", 1)
    file = tmp_path / "genesis.json"
    node.run_json("genesis", "new", file, "--chain-id", "valley-1", "--parameter", "block_transactions_max=77")
    node.run_json("genesis", "add-validator", file, path, "--moniker", "node-a")
    participant = ["--label", "utility", "--role", "utility", "--credit-limit-cents", "500"]
    node.run_json("genesis", "add-participant", file, path, *participant)
    deep = node.run(
        "genesis", "new", tmp_path / "deep.json", "--chain-id", "a", "--parameter", "zone_pairs=" + "[" * 5_000
    )
    assert (deep.exit_code, "is no JSON" in deep.stderr) == (2, True)
    shown = node.run_json("genesis", "show", file)
    assert shown["validators"] == [{"public_key": key.public_key.hex(), "moniker": "node-a"}]
    assert shown["participants"][0]["participant"] == format_address(key.address)
    assert shown["parameters"]["block_transactions_max"] == 77
    twice = node.run("genesis", "add-validator", file, path, "--moniker", "again")
    assert (twice.exit_code, "validator_named_twice" in twice.stderr) == (2, True)
    role = node.run("genesis", "add-participant", file, tmp_path / "node-a.key.json", "--label", "x", "--role", "king")
    assert role.exit_code == 2
    assert node.run_json("genesis", "show", file) == shown


def test_a_home_is_made_once(node: FakeNode, tmp_path: Path) -> None:
    path, _ = make_key_file(tmp_path, "node-a", 1)
    file = tmp_path / "genesis.json"
    node.run_json("genesis", "new", file, "--chain-id", "valley-1")
    node.run_json("genesis", "add-validator", file, path, "--moniker", "node-a")
    home = tmp_path / "home"
    peer = f"{'ab' * 32}@10.0.0.1:8601"
    words = ["node", "init", "--home", home, "--genesis", file, "--key-file", path, "--peer", peer]
    assert node.run_json(*words)["home"] == str(home)
    assert 'host = "10.0.0.1"' in (home / "config.toml").read_text()
    again = node.run(*words)
    assert (again.exit_code, "is a home already" in again.stderr) == (2, True)


def test_a_registration_carries_the_proof_of_the_new_key(node: FakeNode, tmp_path: Path) -> None:
    utility, utility_key = make_key_file(tmp_path, "utility", 1)
    new, new_key = make_key_file(tmp_path, "alice", 2)
    words = ["participant", "register", "--label", "Alice", "--role", "consumer", "--key", utility]
    node.run_json(*words, "--new-key", new)
    payload = node.submitted[0].payload
    assert isinstance(payload, RegisterParticipant)
    assert (payload.public_key, payload.roles, payload.label) == (new_key.public_key, (Role.CONSUMER,), "Alice")
    message = make_possession_message(CHAIN_ID, utility_key.address, PublicKey(new_key.public_key))
    assert is_valid_ed25519(payload.public_key, message, payload.possession)
    proof = node.run_json("participant", "prove-possession", new, "--registrar", utility)
    node.run_json(*words, "--public-key", proof["public_key"], "--possession", proof["possession"])
    assert node.submitted[1].payload == payload
    assert node.run(*words).exit_code == 2


def test_decode_says_whether_signatures_hold(node: FakeNode, tmp_path: Path) -> None:
    path, key = make_key_file(tmp_path, "alice", 1)
    node.run_json("credit", "transfer", "--recipient", path, "--amount-cents", "5", "--key", path)
    raw = get_one(node.submitted).raw
    shown = node.run_json("tx", "decode", raw.hex())
    assert (shown["sender"], shown["signatures_are"]) == (format_address(key.address), "valid")
    (tmp_path / "envelope").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert "signature_invalid" in node.run_json("tx", "decode", tmp_path / "envelope")["signatures_are"]


def test_every_field_of_every_payload_can_be_typed() -> None:
    for tag, kind in load_table().payloads.items():
        names = {parameter.name for parameter in make_transaction_command(tag, kind).params}
        assert set(get_field_types(kind)) <= names, tag
