"""The signed envelope, the ``@transaction`` declaration, and what a rule may see.

Owns the bytes that a participant signs and the table from which decoding, the JSON form, the CLI and OpenRPC derive.
An envelope names the last height at which it may be included and a salt; there is no account nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypedDict, TypeVar, cast

from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed, NotAdmitted
from ledger.fields import (
    AddressText,
    Codec,
    HashText,
    JsonOf,
    KeyText,
    Length,
    Shown,
    SignatureText,
    get_codec,
    to_json,
)
from ledger.primitives import (
    ADDRESS_BYTES,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Address,
    Hash,
    PublicKey,
    Signature,
    format_address,
    is_valid_ed25519,
    sha256,
)
from ledger.receipt import Event
from ledger.tables import Table, check_distinct

if TYPE_CHECKING:
    from ledger.genesis import GenesisDocument
    from ledger.state import State

ENVELOPE_VERSION: Final = 1
SIGNING_TAG: Final = b"wattprint/transaction/1\0"
SALT_BYTES: Final = 8
COSIGNERS_MAX: Final = 8
TRANSACTION_BYTES_MAX: Final = 512 * 1024  # a month of quarter-hours of thirty meters, with room
CHAIN_ID_BYTES_MAX: Final = 64

ANYONE: Final[frozenset[str]] = frozenset()  # any registered participant
Sign = Callable[[bytes], Signature]
SaltText = Annotated[str, JsonOf(Annotated[bytes, Length(SALT_BYTES, SALT_BYTES)])]


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The block that a transaction is in, as far as a rule may see it."""

    chain_id: str
    height: int
    time_ms: int
    version: int


@dataclass(frozen=True, slots=True)
class TxContext:
    """What a rule may see of its transaction: who signed, in which block."""

    tx_id: Hash
    index: int
    sender: Address
    signers: frozenset[Address]  # the sender and every cosigner; each one's key in force has been checked
    block: BlockContext

    @property
    def time_ms(self) -> int:
        """Block time, the only time there is inside a rule."""
        return self.block.time_ms

    def make_id(self, kind: str) -> bytes:
        """A 16-byte id for the one object of this kind that the transaction creates."""
        return make_object_id(kind, self.tx_id)


def make_object_id(kind: str, *parts: bytes) -> bytes:
    """16 bytes that name an object: tagged by kind, so that ids of two kinds never meet."""
    return sha256(b"wattprint/id/1\0" + kind.encode() + b"\0" + encode(tuple(parts)))[:16]


@dataclass(frozen=True, slots=True)
class BlockEnd:
    """What the rule at the end of a block may see: the block, who proposed it, and the id of the one before."""

    block: BlockContext
    proposer: PublicKey
    parent_id: Hash


class Payload:
    """Base of every payload: a frozen dataclass declared with ``@transaction``; ``apply`` is its rule."""

    __slots__ = ()
    declaration: ClassVar[Declaration]

    def apply(self, state: State, tx: TxContext) -> None:
        """Guards, then the change. Raises ``Rejected``; the state is rolled back for it."""
        raise NotImplementedError  # each type has its own rule; there is none that all would share


@dataclass(frozen=True, slots=True)
class Declaration:
    """What ``@transaction`` says of a payload type."""

    tag: str
    since_version: int
    roles: frozenset[str]  # the sender has one of these; empty: any registered participant


P = TypeVar("P", bound=type[Payload])


def transaction(tag: str, *, roles: Iterable[str], since_version: int = 1) -> Callable[[P], P]:
    """Declare a payload type: its tag on the wire, who may sign it, and from which protocol version on."""

    def declare(kind: P) -> P:
        kind.declaration = Declaration(tag, since_version, frozenset(map(str, roles)))
        return kind

    return declare


@dataclass(frozen=True, slots=True, eq=False)
class TransactionTable:
    """Every transaction and event there is, handed to the ledger by the node. Two are the same if they are one.

    ``authorise(state, transaction, declaration)`` refuses signers whose key is not in force or who lack a role;
    ``found(state, document)`` writes what the genesis document says into the first state;
    ``finish_block(state, end)`` runs after a block's last transaction and emits nothing;
    ``version_max`` is the highest protocol version whose rules these are.
    """

    payloads: Mapping[str, type[Payload]]
    events: Mapping[str, type[Event]]
    authorise: Callable[[State, Transaction, Declaration], None]
    found: Callable[[State, GenesisDocument], None]
    finish_block: Callable[[State, BlockEnd], None]
    codecs: Mapping[str, Codec] = field(repr=False)
    version_max: int


def do_nothing_at_end(_state: State, _end: BlockEnd) -> None:
    """The end of a block in a table that has no rule for it."""


def make_table(
    *,
    payloads: Iterable[type[Payload]],
    events: Iterable[type[Event]],
    tables: Iterable[Table[object]],
    authorise: Callable[[State, Transaction, Declaration], None],
    found: Callable[[State, GenesisDocument], None],
    finish_block: Callable[[State, BlockEnd], None] = do_nothing_at_end,
    version_max: int = 1,
) -> TransactionTable:
    """Put the table together; two payloads, events or tables under one name trip an assertion."""
    check_distinct(tables)
    by_tag: dict[str, type[Payload]] = {}
    for payload in payloads:
        assert payload.declaration.tag not in by_tag, payload
        by_tag[payload.declaration.tag] = payload
    by_name: dict[str, type[Event]] = {}
    for one in events:
        assert one.name not in by_name, one
        by_name[one.name] = one
    codecs = {tag: get_codec(payload) for tag, payload in by_tag.items()}
    return TransactionTable(by_tag, by_name, authorise, found, finish_block, codecs, version_max)


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """A decoded transaction. ``raw`` is the whole signed envelope; two are the same if their ids are."""

    raw: bytes
    body: bytes
    tx_id: Hash
    chain_id: str
    tag: str
    sender: Address
    cosigners: tuple[Address, ...]
    valid_until: int
    salt: bytes
    payload: Payload
    signatures: tuple[tuple[PublicKey, Signature], ...]  # of the sender, then of each cosigner

    @property
    def signers(self) -> tuple[Address, ...]:
        """The sender and the cosigners, in the order of the signatures."""
        return (self.sender, *self.cosigners)


class EnvelopeSignature(TypedDict):
    """A signature of the envelope, with the key that it is of."""

    public_key: KeyText
    signature: SignatureText


class SignedTransaction(TypedDict):
    """A transaction as people read it. ``type`` is its tag, the name of what ``payload`` is like."""

    tx_id: HashText
    type: str
    chain_id: str
    sender: AddressText
    cosigners: list[AddressText]
    valid_until: int
    salt: SaltText
    payload: Shown[Payload]
    signatures: list[EnvelopeSignature]


def compute_tx_id(body: bytes) -> Hash:
    """The id of a transaction: over what is signed, not over the signatures."""
    return sha256(SIGNING_TAG + body)


def make_body(
    *,
    chain_id: str,
    payload: Payload,
    sender: Address,
    valid_until: int,
    salt: bytes,
    cosigners: Sequence[Address] = (),
) -> bytes:
    """The canonical bytes that the signers of a transaction sign (behind ``SIGNING_TAG``)."""
    values = get_codec(type(payload)).to_plain(payload)
    tag = payload.declaration.tag
    return encode((ENVELOPE_VERSION, chain_id, tag, sender, tuple(cosigners), valid_until, salt, values))


def make_envelope(body: bytes, signatures: Iterable[tuple[PublicKey, Signature]]) -> bytes:
    """The bytes of a signed transaction as they are submitted, gossiped and stored."""
    return encode((body, tuple(signatures)))


def sign_transaction(body: bytes, signers: Iterable[tuple[PublicKey, Sign]]) -> bytes:
    """Sign a body by the sender and then by each cosigner, and wrap it."""
    message = SIGNING_TAG + body
    return make_envelope(body, [(public_key, sign(message)) for public_key, sign in signers])


def decode_transaction(raw: bytes, table: TransactionTable) -> Transaction:
    """Decode a signed envelope. Raises ``Malformed``, or ``NotAdmitted`` (``transaction_type_unknown``).

    Checks form only; ``check_signatures`` and the rules come after.
    """
    envelope = decode(raw, bytes_max=TRANSACTION_BYTES_MAX)
    if type(envelope) is not tuple or len(envelope) != 2 or type(envelope[0]) is not bytes:
        raise Malformed("envelope_malformed", "expected a body and its signatures")
    body = envelope[0]
    values = decode(body, bytes_max=TRANSACTION_BYTES_MAX)
    if type(values) is not tuple or len(values) != 8:
        raise Malformed("envelope_malformed", "a body has eight parts")
    version, chain_id, tag, sender, cosigners, valid_until, salt, payload = values
    if version != ENVELOPE_VERSION or type(version) is not int:
        raise Malformed("envelope_version_unknown", ascii(version)[:60])
    if type(chain_id) is not str or len(chain_id) > CHAIN_ID_BYTES_MAX:
        raise Malformed("envelope_malformed", "chain id")
    if type(valid_until) is not int or valid_until < 1:
        raise Malformed("envelope_malformed", "valid_until")
    if type(salt) is not bytes or len(salt) != SALT_BYTES:
        raise Malformed("envelope_malformed", f"a salt has {SALT_BYTES} bytes")
    addresses = _read_signers(sender, cosigners)
    codec = table.codecs.get(tag) if type(tag) is str else None
    if codec is None or type(tag) is not str:
        raise NotAdmitted("transaction_type_unknown", ascii(tag)[:60])
    return Transaction(
        raw=raw,
        body=body,
        tx_id=compute_tx_id(body),
        chain_id=chain_id,
        tag=tag,
        sender=addresses[0],
        cosigners=addresses[1:],
        valid_until=valid_until,
        salt=salt,
        payload=cast(Payload, codec.from_plain(payload)),
        signatures=_read_signatures(envelope[1], len(addresses)),
    )


def check_signatures(tx: Transaction) -> None:
    """Check every signature of the envelope under the key it names. Raises ``NotAdmitted``.

    That the key is the signer's key in force is a question to the state: ``TransactionTable.authorise``.
    """
    message = SIGNING_TAG + tx.body
    for address, (public_key, signature) in zip(tx.signers, tx.signatures, strict=True):
        if not is_valid_ed25519(public_key, message, signature):
            raise NotAdmitted("signature_invalid", format_address(address))


def transaction_to_json(tx: Transaction) -> SignedTransaction:
    """The JSON form of a transaction, for people: the envelope's parts and the payload by field name."""
    return {
        "tx_id": tx.tx_id.hex(),
        "type": tx.tag,
        "chain_id": tx.chain_id,
        "sender": format_address(tx.sender),
        "cosigners": [format_address(address) for address in tx.cosigners],
        "valid_until": tx.valid_until,
        "salt": tx.salt.hex(),
        "payload": to_json(tx.payload),
        "signatures": [
            {"public_key": public_key.hex(), "signature": signature.hex()} for public_key, signature in tx.signatures
        ],
    }


def _read_signers(sender: Plain, cosigners: Plain) -> tuple[Address, ...]:
    if type(cosigners) is not tuple or len(cosigners) > COSIGNERS_MAX:
        raise Malformed("envelope_malformed", f"cosigners: an array of at most {COSIGNERS_MAX}")
    addresses = (sender, *cosigners)
    for address in addresses:
        if type(address) is not bytes or len(address) != ADDRESS_BYTES:
            raise Malformed("address_invalid", "sender or cosigner")
    if len(set(addresses)) != len(addresses):
        raise Malformed("signer_named_twice")
    return cast("tuple[Address, ...]", addresses)


def _read_signatures(plain: Plain, count: int) -> tuple[tuple[PublicKey, Signature], ...]:
    if type(plain) is not tuple or len(plain) != count:
        raise Malformed("signature_count_wrong", f"{count} expected, one for each signer")
    for pair in plain:
        if type(pair) is not tuple or len(pair) != 2:
            raise Malformed("envelope_malformed", "signatures")
        public_key, signature = pair
        if type(public_key) is not bytes or len(public_key) != PUBLIC_KEY_BYTES:
            raise Malformed("public_key_invalid")
        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            raise Malformed("signature_malformed")
    return cast("tuple[tuple[PublicKey, Signature], ...]", plain)
