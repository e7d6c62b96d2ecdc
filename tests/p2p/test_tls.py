"""Certificates of peers: the key that stands in one has signed it, and whatever else is refused with a reason."""

from __future__ import annotations

import dataclasses
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Rejected
from p2p.tls import PeerTls, read_certificate_key
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


@given(st.integers(0, 8 * len(CERTIFICATE) - 1))
def test_a_certificate_with_one_bit_changed_is_refused(bit: int) -> None:
    changed = bytearray(CERTIFICATE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Rejected, match=r"certificate_(malformed|signature_invalid)"):
        read_certificate_key(bytes(changed))


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
