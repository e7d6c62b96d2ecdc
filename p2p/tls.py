"""TLS 1.3 between nodes, both sides with a certificate: every permitted node key is an authority for one other key.

Touches the world (a temporary file, randomness). The node's own key never enters OpenSSL: it signs, once a start, the
certificate of a fresh TLS key, and peers trust such certificates because they know the node's key, and nobody else's.
"""

from __future__ import annotations

import datetime
import secrets
import ssl
import tempfile
import warnings
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from ledger.errors import Malformed, NotAdmitted
from ledger.primitives import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Hash, PublicKey, is_valid_ed25519, sha256
from p2p.session import Channel, LocalNode

SUBJECT: Final = "wattprint peer"
# A certificate lives as long as its process, and keys are pinned: a clock that is wrong must not part honest nodes.
VALID_FROM: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
VALID_UNTIL: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_NO_UNUSED_BITS: Final = b"\0"  # how the BIT STRING of a signature begins
_PASSWORD_BYTES: Final = 32


class PeerTls:
    """The TLS side of one node: its certificate, and the contexts to listen and to dial with."""

    def __init__(self, local: LocalNode) -> None:
        self._tls_key = Ed25519PrivateKey.generate()
        self._trusted: set[PublicKey] = set()
        self.certificate: Final = _issue_certificate(local, self._tls_key)
        self.listening: Final = self._make_context(ssl.PROTOCOL_TLS_SERVER)
        self.dialling: Final = self._make_context(ssl.PROTOCOL_TLS_CLIENT)
        self.listening.num_tickets = 0  # nothing is resumed: each connection proves its key anew

    def trust(self, keys: Iterable[PublicKey]) -> None:
        """Let holders of these keys through the TLS handshake from now on.

        A key that is no longer permitted is refused by the session: OpenSSL forgets no authority.
        """
        for key in frozenset(keys) - self._trusted:
            authority = _make_authority(key, self._tls_key)
            self.listening.load_verify_locations(cadata=authority)
            self.dialling.load_verify_locations(cadata=authority)
            self._trusted.add(key)

    def read_channel(self, tls: ssl.SSLObject) -> Channel:
        """What the session must know of an open TLS connection. Raises ``Rejected``."""
        certificate = tls.getpeercert(binary_form=True)
        assert certificate, "both sides of the contexts ask for a certificate"
        return Channel(
            own_certificate=Hash(sha256(self.certificate)),
            peer_certificate=Hash(sha256(certificate)),
            peer_key=read_certificate_key(certificate),
        )

    def _make_context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # a peer is its key, whatever its host is called
        context.verify_mode = ssl.CERT_REQUIRED
        password = secrets.token_hex(_PASSWORD_BYTES).encode()
        secret = self._tls_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        )
        certificate = ssl.DER_cert_to_PEM_cert(self.certificate).encode()
        # The ssl module reads keys from files only. This one is encrypted, ours alone (0600), and gone at once.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + secret)
            file.flush()
            context.load_cert_chain(file.name, password=password)
        return context


def read_certificate_key(certificate: bytes) -> PublicKey:
    """The node key that has signed a peer's certificate (DER). Raises ``Rejected``."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what a stranger's bytes should not have
            read = x509.load_der_x509_certificate(certificate)
            (name,) = read.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = bytes.fromhex(str(name.value))
        is_ed25519 = read.signature_algorithm_oid == SignatureAlgorithmOID.ED25519
        signed, signature = read.tbs_certificate_bytes, read.signature
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Malformed("certificate_malformed", str(error)) from error
    if not is_ed25519 or len(key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise Malformed("certificate_malformed", "not issued by an Ed25519 key")
    if not certificate.endswith(_NO_UNUSED_BITS + signature):
        raise Malformed("certificate_malformed", "a signature has whole bytes")  # else some had a second form
    if not is_valid_ed25519(PublicKey(key), signed, signature):
        raise NotAdmitted("certificate_signature_invalid", key.hex())
    return PublicKey(key)


def _issue_certificate(local: LocalNode, tls_key: Ed25519PrivateKey) -> bytes:
    """The certificate of the TLS key, signed by the node's key through its ``sign``, in DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)])
    draft = _build(_make_name(local.public_key), subject, tls_key.public_key(), tls_key, is_authority=False)
    # The library signs only with keys it holds. An Ed25519 signature is the last 64 bytes of a certificate, so the
    # node's signature takes the place of the draft's.
    signature = local.sign(draft.tbs_certificate_bytes)
    return draft.public_bytes(serialization.Encoding.DER)[:-SIGNATURE_BYTES] + signature


def _make_authority(key: PublicKey, tls_key: Ed25519PrivateKey) -> bytes:
    """What tells OpenSSL to trust a node's key. Its own signature is anybody's: that of an anchor is never checked."""
    name = _make_name(key)
    public_key = Ed25519PublicKey.from_public_bytes(key)
    return _build(name, name, public_key, tls_key, is_authority=True).public_bytes(serialization.Encoding.DER)


def _build(
    issuer: x509.Name,
    subject: x509.Name,
    public_key: Ed25519PublicKey,
    signer: Ed25519PrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
    builder = builder.not_valid_before(VALID_FROM).not_valid_after(VALID_UNTIL)
    constraints = x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None)
    return builder.add_extension(constraints, critical=True).sign(signer, None)


def _make_name(key: PublicKey) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.hex())])
