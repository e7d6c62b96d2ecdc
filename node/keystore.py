"""Keys: how this machine signs, and how a key sleeps on its disk, encrypted under a passphrase.

Owns the two kinds of signing key (Ed25519 for participants and validators; Ed25519 or P-256 for meters) and the key
file, a JSON document whose public half is readable without the passphrase. No secret is ever shown by ``repr``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import nacl.bindings
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ledger.primitives import (
    P256_KEY_BYTES,
    PUBLIC_KEY_BYTES,
    Address,
    MeterKey,
    PublicKey,
    Signature,
    compute_address,
    format_address,
)
from node.errors import LocalError, get_disk_reason
from node.files import write_new, write_replacing

Scheme: TypeAlias = Literal["ed25519", "p256"]

SECRET_BYTES: Final = 32
SCRYPT_N: Final = 2**15  # 32 MB and about 0.1 s for each guess
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
SCRYPT_N_MAX: Final = 2**20  # what a file may ask of this machine: 1 GB
SCRYPT_R_MAX: Final = 8
SCRYPT_P_MAX: Final = 4
KEY_FILE_BYTES_MAX: Final = 8 * 1024
KEY_FILE_SUFFIX: Final = ".key.json"

_ENCRYPTION_KEY_TAG: Final = b"wattprint/encryption-key/1"
_FORMAT: Final = "wattprint-key"
_VERSION: Final = 1
_SCHEMES: Final[dict[str, Scheme]] = {"ed25519": "ed25519", "p256": "p256"}
_ENCRYPTED: Final = "scrypt-chacha20poly1305"
_UNENCRYPTED: Final = "none"
_OWNER_ONLY: Final = 0o600
_OTHERS_MAY_READ: Final = 0o077
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class KeystoreError(LocalError):
    """A key file cannot be used or written.

    Reasons: ``key_file_missing``, ``key_file_damaged``, ``key_file_exists``, ``key_file_not_usable``,
    ``permission_missing``, ``disk_full``, ``passphrase_wrong``, ``passphrase_missing``, ``passphrase_empty``,
    ``key_scheme_unexpected``, ``key_secret_invalid``.
    """


class SigningKey:
    """An Ed25519 key pair of a participant or a validator."""

    __slots__ = ("_expanded", "_secret", "address", "public_key")

    scheme: Final[Scheme] = "ed25519"

    def __init__(self, seed: bytes) -> None:
        """The key pair of a 32-byte seed (RFC 8032)."""
        _check_secret(seed)
        public_key, self._expanded = nacl.bindings.crypto_sign_seed_keypair(seed)
        self._secret = seed
        self.public_key = PublicKey(public_key)
        self.address: Address = compute_address(self.public_key)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of a 32-byte seed; the same seed gives the same key. Raises ``key_secret_invalid``."""
        return cls(seed)

    def sign(self, message: bytes) -> Signature:
        """The signature of ``message``, 64 bytes."""
        return Signature(nacl.bindings.crypto_sign(message, self._expanded)[:64])

    def derive_encryption_key(self) -> bytes:
        """The X25519 private key that belongs to this key: with one file, and one passphrase, a person has both."""
        return HKDF(hashes.SHA256(), length=SECRET_BYTES, salt=None, info=_ENCRYPTION_KEY_TAG).derive(self._secret)

    def __repr__(self) -> str:
        return f"SigningKey({format_address(self.address)})"


class MeterSigningKey:
    """A meter's own key pair, of either scheme; ``public_key`` is 32 bytes (Ed25519) or 33 (P-256, compressed)."""

    __slots__ = ("_ed25519", "_p256", "_secret", "public_key", "scheme")

    def __init__(self, scheme: Scheme, secret: bytes) -> None:
        """The key pair of a 32-byte secret: an Ed25519 seed, or a P-256 scalar, big-endian."""
        _check_secret(secret)
        self.scheme: Scheme = scheme
        self._secret = secret
        self._ed25519: SigningKey | None = None
        self._p256: ec.EllipticCurvePrivateKey | None = None
        if scheme == "ed25519":
            self._ed25519 = SigningKey(secret)
            self.public_key = MeterKey(self._ed25519.public_key)
        else:
            self._p256 = _derive_p256(secret)
            point = self._p256.public_key()
            compressed = serialization.PublicFormat.CompressedPoint
            self.public_key = MeterKey(point.public_bytes(serialization.Encoding.X962, compressed))

    @classmethod
    def generate(cls, scheme: Scheme = "ed25519") -> MeterSigningKey:
        """A new key from the operating system's randomness."""
        if scheme == "ed25519":
            return cls(scheme, secrets.token_bytes(SECRET_BYTES))
        scalar = 1 + secrets.randbelow(_P256_ORDER - 1)
        return cls(scheme, scalar.to_bytes(SECRET_BYTES, "big"))

    @classmethod
    def from_seed(cls, seed: bytes, scheme: Scheme = "ed25519") -> MeterSigningKey:
        """The key of a 32-byte secret; the same secret gives the same key. Raises ``key_secret_invalid``."""
        return cls(scheme, seed)

    def sign(self, message: bytes) -> Signature:
        """The signature of ``message``, 64 bytes: Ed25519, or P-256 over SHA-256 as r ‖ s with the lower s."""
        if self._ed25519 is not None:
            return self._ed25519.sign(message)
        assert self._p256 is not None
        der = self._p256.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(der)
        s = min(s, _P256_ORDER - s)
        return Signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def __repr__(self) -> str:
        return f"MeterSigningKey({self.scheme}, {self.public_key.hex()})"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file tells without its passphrase. ``warning`` is a reason, or empty."""

    path: Path
    scheme: Scheme
    public_key: bytes
    is_encrypted: bool
    warning: str  # key_file_readable_by_others
    _document: Mapping[str, object] = field(repr=False)

    @property
    def address(self) -> Address | None:
        """The address that an Ed25519 key gives its participant; a P-256 key has none."""
        return compute_address(PublicKey(self.public_key)) if self.scheme == "ed25519" else None


def save_key(path: Path, key: SigningKey | MeterSigningKey, passphrase: str) -> None:
    """Writes a new key file, encrypted, readable by its owner only. Never overwrites: ``key_file_exists``."""
    _write_new(path, _encrypt(key.scheme, key.public_key, key._secret, passphrase))


def save_key_unencrypted(path: Path, key: SigningKey | MeterSigningKey) -> None:
    """Writes a new key file in clear, for a test network that is thrown away; the file says so."""
    document = _public_part(key.scheme, key.public_key) | {"encryption": _UNENCRYPTED, "secret": key._secret.hex()}
    _write_new(path, document)


def load_signing_key(path: Path, passphrase: str | None = None) -> SigningKey:
    """The participant's or validator's key in a file. ``passphrase`` is not read if the file is in clear."""
    file = read_key_file(path)
    if file.scheme != "ed25519":
        raise KeystoreError("key_scheme_unexpected", f"{path} holds a {file.scheme} key, only a meter signs with it")
    return SigningKey(_unlock(file, passphrase))


def load_meter_key(path: Path, passphrase: str | None = None) -> MeterSigningKey:
    """The meter's key in a file, of either scheme."""
    file = read_key_file(path)
    return MeterSigningKey(file.scheme, _unlock(file, passphrase))


def read_key_file(path: Path) -> KeyFile:
    """The public half of a key file. Raises ``key_file_missing``, ``key_file_damaged``, ``permission_missing``."""
    document = _read_document(path)
    scheme, encryption = _SCHEMES.get(str(document.get("scheme"))), document.get("encryption")
    public_key = _parse_hex(document.get("public_key"), path)
    if scheme is None or encryption not in (_ENCRYPTED, _UNENCRYPTED):
        raise KeystoreError("key_file_damaged", path)
    if len(public_key) != (PUBLIC_KEY_BYTES if scheme == "ed25519" else P256_KEY_BYTES):
        raise KeystoreError("key_file_damaged", path)
    others_may_read = bool(path.stat().st_mode & _OTHERS_MAY_READ)
    return KeyFile(
        path=path,
        scheme=scheme,
        public_key=public_key,
        is_encrypted=encryption == _ENCRYPTED,
        warning="key_file_readable_by_others" if others_may_read else "",
        _document=document,
    )


def change_passphrase(path: Path, *, old: str | None, new: str) -> None:
    """Encrypts a key file anew under another passphrase; after a crash the file is the old one or the new one."""
    file = read_key_file(path)
    document = _encrypt(file.scheme, file.public_key, _unlock(file, old), new)
    try:
        write_replacing(path, _format_document(document), mode=_OWNER_ONLY)
    except OSError as error:
        raise _explain(error, path) from error


def list_keys(directory: Path) -> list[KeyFile]:
    """The key files (``*.key.json``) of a directory, by name. Raises on the first that is damaged."""
    if not directory.is_dir():
        raise KeystoreError("key_file_missing", directory)
    return [read_key_file(path) for path in sorted(directory.glob("*" + KEY_FILE_SUFFIX))]


def _check_secret(secret: bytes) -> None:
    if len(secret) != SECRET_BYTES:
        raise KeystoreError("key_secret_invalid", f"{len(secret)} bytes, {SECRET_BYTES} expected")


def _derive_p256(secret: bytes) -> ec.EllipticCurvePrivateKey:
    scalar = int.from_bytes(secret, "big")
    if not 0 < scalar < _P256_ORDER:
        raise KeystoreError("key_secret_invalid", "not a scalar of P-256")
    return ec.derive_private_key(scalar, ec.SECP256R1())


def _public_part(scheme: Scheme, public_key: bytes) -> dict[str, object]:
    part: dict[str, object] = {"format": _FORMAT, "version": _VERSION, "scheme": scheme, "public_key": public_key.hex()}
    if scheme == "ed25519":
        part["address"] = format_address(compute_address(PublicKey(public_key)))
    return part


def _encrypt(scheme: Scheme, public_key: bytes, secret: bytes, passphrase: str) -> dict[str, object]:
    if not passphrase:
        raise KeystoreError("passphrase_empty")
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    key = Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.encode())
    sealed = ChaCha20Poly1305(key).encrypt(nonce, secret, _bound(scheme, public_key))
    return _public_part(scheme, public_key) | {
        "encryption": _ENCRYPTED,
        "kdf": {"n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": salt.hex()},
        "nonce": nonce.hex(),
        "secret": sealed.hex(),
    }


def _unlock(file: KeyFile, passphrase: str | None) -> bytes:
    """The secret of a key file, checked against the public key in it."""
    stored = _parse_hex(file._document.get("secret"), file.path)
    secret = _decrypt(file, stored, passphrase) if file.is_encrypted else stored
    if len(secret) != SECRET_BYTES or MeterSigningKey(file.scheme, secret).public_key != file.public_key:
        raise KeystoreError("key_file_damaged", file.path)
    return secret


def _decrypt(file: KeyFile, sealed: bytes, passphrase: str | None) -> bytes:
    if passphrase is None:
        raise KeystoreError("passphrase_missing", file.path)
    kdf, nonce = file._document.get("kdf"), _parse_hex(file._document.get("nonce"), file.path)
    if not isinstance(kdf, dict) or len(nonce) != 12:
        raise KeystoreError("key_file_damaged", file.path)
    n = _parse_cost(kdf.get("n"), SCRYPT_N_MAX, file.path)
    r = _parse_cost(kdf.get("r"), SCRYPT_R_MAX, file.path)
    p = _parse_cost(kdf.get("p"), SCRYPT_P_MAX, file.path)
    if n < 2 or n & (n - 1):
        raise KeystoreError("key_file_damaged", file.path)
    salt = _parse_hex(kdf.get("salt"), file.path)
    try:
        key = Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase.encode())
    except (MemoryError, ValueError) as error:  # also for numbers that do not go together
        raise KeystoreError("key_file_not_usable", f"{file.path}: its key cannot be derived here: {error}") from None
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, _bound(file.scheme, file.public_key))
    except InvalidTag:  # the file's checksum holds, so it is the passphrase
        raise KeystoreError("passphrase_wrong", file.path) from None


def _bound(scheme: Scheme, public_key: bytes) -> bytes:
    """What the sealed secret is bound to: it cannot be moved into a file of another key."""
    return f"{_FORMAT}/{_VERSION}/{scheme}/{public_key.hex()}".encode()


def _compute_checksum(document: Mapping[str, object]) -> str:
    """Tells a damaged file from a wrong passphrase; no protection against a person."""
    rest = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def _read_document(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            data = stream.read(KEY_FILE_BYTES_MAX + 1)
        document: object = json.loads(data)
        if not isinstance(document, dict) or document.get("checksum") != _compute_checksum(document):
            raise KeystoreError("key_file_damaged", path)
    except FileNotFoundError:
        raise KeystoreError("key_file_missing", path) from None
    except OSError as error:
        raise _explain(error, path) from error
    except (ValueError, RecursionError):
        raise KeystoreError("key_file_damaged", path) from None
    if document.get("format") != _FORMAT or document.get("version") != _VERSION:
        raise KeystoreError("key_file_damaged", f"{path}: not a key file of version {_VERSION}")
    return document


def _parse_hex(value: object, path: Path) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raise KeystoreError("key_file_damaged", path) from None


def _parse_cost(value: object, largest: int, path: Path) -> int:
    if type(value) is not int or not 0 < value <= largest:
        raise KeystoreError("key_file_damaged", path)
    return value


def _write_new(path: Path, document: dict[str, object]) -> None:
    try:
        write_new(path, _format_document(document), mode=_OWNER_ONLY)
    except FileExistsError:
        raise KeystoreError("key_file_exists", path) from None
    except OSError as error:
        raise _explain(error, path) from error


def _format_document(document: dict[str, object]) -> bytes:
    return (json.dumps(document | {"checksum": _compute_checksum(document)}, indent=2) + "\n").encode()


def _explain(error: OSError, path: Path) -> KeystoreError:
    return KeystoreError(get_disk_reason(error, otherwise="key_file_not_usable"), f"{path}: {error.strerror}")
