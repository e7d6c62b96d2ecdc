"""Keys on disk: nobody reads one without the passphrase, nothing is overwritten, and each fault has its own word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from ledger.primitives import compute_address, format_address, is_valid_ed25519, is_valid_meter_signature, is_valid_p256
from node import keystore
from node.keystore import (
    KeystoreError,
    MeterSigningKey,
    Scheme,
    SigningKey,
    change_passphrase,
    list_keys,
    load_meter_key,
    load_signing_key,
    read_key_file,
    save_key,
    save_key_unencrypted,
)

SEED = bytes(range(32))
PASSPHRASE = "correct horse"


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost stands in each file, so that a test may write cheap ones."""
    monkeypatch.setattr(keystore, "SCRYPT_N", 2)


def test_the_first_rfc_8032_vector_is_signed() -> None:
    key = SigningKey.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")
    assert is_valid_ed25519(key.public_key, b"", key.sign(b""))
    assert key.address == compute_address(key.public_key)


@pytest.mark.parametrize("scheme", ["ed25519", "p256"])
def test_a_meter_key_of_either_scheme_signs_what_the_ledger_accepts(scheme: Scheme) -> None:
    key = MeterSigningKey.from_seed(SEED, scheme)
    for i in range(20):
        message = b"reading %d" % i
        assert is_valid_meter_signature(key.public_key, message, key.sign(message))
        assert not is_valid_meter_signature(key.public_key, message + b"!", key.sign(message))


def test_a_p256_signature_has_the_lower_s_and_verifies_elsewhere() -> None:
    key = MeterSigningKey.from_seed(SEED, "p256")
    signature = key.sign(b"reading")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    assert s <= keystore._P256_ORDER // 2
    assert is_valid_p256(key.public_key, b"reading", signature)
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.public_key)
    point.verify(utils.encode_dss_signature(r, s), b"reading", ec.ECDSA(hashes.SHA256()))


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public_key != SigningKey.generate().public_key
    assert MeterSigningKey.generate("p256").public_key != MeterSigningKey.generate("p256").public_key


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(KeystoreError, match="key_secret_invalid"):
        SigningKey.from_seed(secret)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_a_number_outside_the_curve_is_refused(secret: bytes) -> None:
    with pytest.raises(KeystoreError, match="key_secret_invalid"):
        MeterSigningKey.from_seed(secret, "p256")


def test_a_saved_key_comes_back_under_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    assert load_signing_key(path, PASSPHRASE).sign(b"m") == SigningKey.from_seed(SEED).sign(b"m")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_public_half_is_readable_and_the_secret_half_is_not(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    key = SigningKey.from_seed(SEED)
    save_key(path, key, PASSPHRASE)
    document = json.loads(path.read_text())
    assert document["address"] == format_address(key.address)
    assert document["public_key"] == key.public_key.hex()
    assert document["kdf"]["n"] == 2
    assert SEED.hex() not in path.read_text()
    file = read_key_file(path)
    assert (file.address, file.public_key, file.is_encrypted, file.warning) == (key.address, key.public_key, True, "")


def test_the_cost_of_a_guess_is_the_stated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    cost = json.loads(path.read_text())["kdf"]
    assert (cost["n"], cost["r"], cost["p"]) == (2**15, 8, 1)
    assert load_signing_key(path, PASSPHRASE).public_key == SigningKey.from_seed(SEED).public_key


def test_no_secret_is_shown() -> None:
    for key in (SigningKey.from_seed(SEED), MeterSigningKey.from_seed(SEED), MeterSigningKey.from_seed(SEED, "p256")):
        assert SEED.hex() not in repr(key)
        assert repr(SEED) not in repr(key)


def test_a_wrong_passphrase_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    for passphrase, reason in (("wrong", "passphrase_wrong"), (None, "passphrase_missing")):
        with pytest.raises(KeystoreError, match=reason) as refusal:
            load_signing_key(path, passphrase)
        assert PASSPHRASE not in str(refusal.value)
    with pytest.raises(KeystoreError, match="passphrase_empty"):
        save_key(tmp_path / "other", SigningKey.from_seed(SEED), "")


def test_any_damage_is_called_damage_not_a_wrong_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 3):
        if whole[place : place + 1].isspace():
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(KeystoreError, match="key_file_damaged"):
            load_signing_key(path, PASSPHRASE)
    for rubbish in (b"", b"[]", b"{}", b"\xff\xfe", b"[" * 5000, whole[:-20]):
        path.write_bytes(rubbish)
        with pytest.raises(KeystoreError, match="key_file_damaged"):
            read_key_file(path)


@pytest.mark.parametrize("cost", [{"n": 2**30}, {"n": 3}, {"n": 0}, {"r": 99}, {"p": True}, {"salt": "xx"}])
def test_a_file_cannot_ask_for_more_work_than_the_limit(tmp_path: Path, cost: dict[str, object]) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    document = json.loads(path.read_text())
    document["kdf"] |= cost
    document["checksum"] = keystore._compute_checksum(document)
    path.write_text(json.dumps(document))
    with pytest.raises(KeystoreError, match="key_file_damaged"):
        load_signing_key(path, PASSPHRASE)


def test_a_secret_moved_under_another_public_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key_unencrypted(path, SigningKey.from_seed(SEED))
    document = json.loads(path.read_text())
    document["secret"] = bytes(32).hex()
    document["checksum"] = keystore._compute_checksum(document)
    path.write_text(json.dumps(document))
    with pytest.raises(KeystoreError, match="key_file_damaged"):
        load_signing_key(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for call in (load_signing_key, load_meter_key, read_key_file, list_keys):
        with pytest.raises(KeystoreError, match="key_file_missing") as refusal:
            call(tmp_path / "nobody")
        assert "nobody" in refusal.value.item


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="key_file_exists"):
        save_key(path, SigningKey.generate(), PASSPHRASE)
    with pytest.raises(KeystoreError, match="key_file_exists"):
        save_key_unencrypted(path, SigningKey.generate())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    path.chmod(0o644)
    assert read_key_file(path).warning == "key_file_readable_by_others"
    assert load_signing_key(path, PASSPHRASE).public_key == SigningKey.from_seed(SEED).public_key


def test_changing_the_passphrase_locks_out_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    with pytest.raises(KeystoreError, match="passphrase_wrong"):
        change_passphrase(path, old="wrong", new="new one")
    change_passphrase(path, old=PASSPHRASE, new="new one")
    assert load_signing_key(path, "new one").public_key == SigningKey.from_seed(SEED).public_key
    with pytest.raises(KeystoreError, match="passphrase_wrong"):
        load_signing_key(path, PASSPHRASE)
    assert list(tmp_path.iterdir()) == [path]


def test_a_throw_away_key_in_clear_says_so_and_can_be_encrypted_later(tmp_path: Path) -> None:
    path = tmp_path / "test.key.json"
    save_key_unencrypted(path, SigningKey.from_seed(SEED))
    assert json.loads(path.read_text())["encryption"] == "none"
    assert not read_key_file(path).is_encrypted
    assert load_signing_key(path).public_key == SigningKey.from_seed(SEED).public_key
    change_passphrase(path, old=None, new=PASSPHRASE)
    assert SEED.hex() not in path.read_text()


@pytest.mark.parametrize("scheme", ["ed25519", "p256"])
def test_a_meter_key_is_saved_and_loaded(tmp_path: Path, scheme: Scheme) -> None:
    path = tmp_path / "meter.key.json"
    key = MeterSigningKey.from_seed(SEED, scheme)
    save_key(path, key, PASSPHRASE)
    loaded = load_meter_key(path, PASSPHRASE)
    assert (loaded.public_key, loaded.scheme) == (key.public_key, scheme)


def test_a_p256_key_cannot_sign_for_a_participant(tmp_path: Path) -> None:
    path = tmp_path / "meter.key.json"
    save_key(path, MeterSigningKey.from_seed(SEED, "p256"), PASSPHRASE)
    assert read_key_file(path).address is None
    with pytest.raises(KeystoreError, match="key_scheme_unexpected"):
        load_signing_key(path, PASSPHRASE)


def test_keys_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("bob", "alice"):
        save_key(tmp_path / f"{name}.key.json", SigningKey.generate(), PASSPHRASE)
    (tmp_path / "notes.txt").write_text("not a key")
    assert [file.path.name for file in list_keys(tmp_path)] == ["alice.key.json", "bob.key.json"]


def test_a_file_that_nests_as_deep_as_can_be_read_is_damaged(tmp_path: Path) -> None:
    """Its checksum is computed deeper in the stack than it was read."""
    path = tmp_path / "deep.key.json"
    for depth in range(900, 1_000):
        path.write_text('{"a":' + "[" * depth + "]" * depth + "}")
        with pytest.raises(KeystoreError, match="key_file_damaged"):
            read_key_file(path)


def test_costs_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "alice.key.json"
    save_key(path, SigningKey.from_seed(SEED), PASSPHRASE)
    document = json.loads(path.read_text())
    document["kdf"] |= {"n": 2**20, "r": 1}  # r = 1 allows no more than 2¹⁵
    document["checksum"] = keystore._compute_checksum(document)
    path.write_text(json.dumps(document))
    with pytest.raises(KeystoreError, match="key_file_not_usable"):
        load_signing_key(path, PASSPHRASE)
