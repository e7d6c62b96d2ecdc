"""Dave, whom a test registers, and the papers on which a utility decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from contracts_native.documents import SetEncryptionKey, compute_document_id
from contracts_native.kyc import Citation
from contracts_native.participants import RegisterParticipant, Role, make_possession_message
from tests.contracts_native.harness import CHAIN_ID, RIVAL, UTILITY, Person, World, make_person
from tests.contracts_native.test_documents import make_paper, make_x25519

DAVE: Final = make_person("dave")


def registration(person: Person, registrar: Person = UTILITY) -> RegisterParticipant:
    possession = person.sign(make_possession_message(CHAIN_ID, registrar.address, person.public_key))
    return RegisterParticipant(person.public_key, possession, (Role.CONSUMER,), person.name)


def add_dave(world: World, registrar: Person = UTILITY) -> None:
    world.apply(registration(DAVE, registrar), by=registrar)


def add_papers(world: World, subject: Person) -> None:
    """The first version of a participant's papers, which both utilities can read."""
    for person in (UTILITY, RIVAL):
        world.apply(SetEncryptionKey(make_x25519(person.name)), by=person)
    world.apply(make_paper("1", UTILITY, RIVAL, subject=subject), by=subject)


def add_version(world: World, number: int, subject: Person, *readers: Person) -> None:
    """Another version of the papers."""
    paper = make_paper(f"{number}", *readers, subject=subject)
    world.apply(replace(paper, supersedes=cite(1, subject).document), by=subject)


def cite(version: int, subject: Person = DAVE) -> Citation:
    """A version of a participant's papers."""
    return Citation(compute_document_id(subject.address, make_x25519("document 1")), version)
