"""Certificates of peers: the key that stands in one has signed it, and whatever else is refused with a reason."""

from __future__ import annotations

import dataclasses
import ssl
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Rejected
from p2p.tls import VALID_FROM, VALID_UNTIL, PeerTls, read_certificate_key
from tests.p2p.dialogue import ALICE, BOB

CERTIFICATE = PeerTls(ALICE).certificate


def test_a_certificate_names_the_node_key_that_signed_it() -> None:
    assert read_certificate_key(CERTIFICATE) == ALICE.public_key


def test_every_start_has_a_tls_key_of_its_own() -> None:
    assert PeerTls(ALICE).certificate != CERTIFICATE


def test_a_certificate_in_anothers_name_is_refused() -> None:
    thief = dataclasses.replace(ALICE, sign=BOB.sign)
    with pytest.raises(Rejected, match="certificate_signature_invalid"):
        read_certificate_key(PeerTls(thief).certificate)


def test_a_name_that_is_no_text_is_refused() -> None:
    """Found by fuzzing: the library raises ``TypeError`` for a name that is a bit string."""
    text = bytes.fromhex("0c40") + ALICE.public_key.hex().encode()
    assert CERTIFICATE.count(text) == 1
    with pytest.raises(Rejected, match="certificate_malformed"):
        read_certificate_key(CERTIFICATE.replace(text, bytes.fromhex("034000") + text[3:]))


def test_a_name_that_is_too_long_is_refused_without_a_warning() -> None:
    """The library warns of it, on the standard error of whoever reads the certificate."""
    with warnings.catch_warnings(action="ignore"):
        attribute = x509.NameAttribute(NameOID.COMMON_NAME, "ab" * 40, _validate=False)
        name, key = x509.Name([attribute]), Ed25519PrivateKey.generate()
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, VALID_FROM, VALID_UNTIL)
        certificate = builder.sign(key, None).public_bytes(serialization.Encoding.DER)
    with pytest.raises(Rejected, match="certificate_malformed"):
        read_certificate_key(certificate)


@given(st.integers(0, 8 * len(CERTIFICATE) - 1))
def test_a_certificate_with_one_bit_changed_is_refused(bit: int) -> None:
    changed = bytearray(CERTIFICATE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Rejected, match=r"certificate_(malformed|signature_invalid)"):
        read_certificate_key(bytes(changed))


def test_a_signature_that_ends_in_a_zero_bit_has_no_second_form() -> None:
    certificates = [PeerTls(ALICE).certificate for _ in range(20)]  # half of them end so
    for one in certificates:
        read_certificate_key(one)
        with pytest.raises(Rejected, match="certificate_malformed"):
            read_certificate_key(one[:-65] + b"\1" + one[-64:])


@given(st.binary(max_size=400))
def test_rubbish_is_no_certificate(data: bytes) -> None:
    with pytest.raises(Rejected, match="certificate_malformed"):
        read_certificate_key(data)


def test_only_tls_1_3_with_certificates_on_both_sides_is_spoken() -> None:
    tls = PeerTls(ALICE)
    for context in (tls.listening, tls.dialling):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_only_the_named_keys_are_trusted() -> None:
    tls = PeerTls(ALICE)
    assert tls.listening.get_ca_certs() == tls.dialling.get_ca_certs() == []
    tls.trust([BOB.public_key])
    tls.trust([BOB.public_key])
    assert len(tls.listening.get_ca_certs()) == len(tls.dialling.get_ca_certs()) == 1
