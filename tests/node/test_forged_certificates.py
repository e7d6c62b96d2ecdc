"""A certificate whose state was forged by all validators together: signatures and sums still do not add up.

Both verifiers are asked. What is changed here is proved again, signed again by a quorum and sealed again, so that
nothing but the rule itself can refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast

import pytest

from ledger.fields import Json, from_json, to_json
from ledger.state_root import StateTree
from node.certificates.format import Certificate, StatePart
from node.certificates.pruned_tree import prune
from node.certificates.records import list_entries
from node.queries.view import JsonObject
from tests.examples.test_verify_certificate import ask_first, ask_second, issue
from tests.node.certificate_chain import VALIDATORS, make_commit, make_market, seal

Forge = Callable[[JsonObject], None]


class Buckets(dict[bytes, bytes]):
    """Where the forged tree keeps its entries."""

    def get_bucket(self, path: bytes) -> bytes | None:
        return self.get(path)


def prove_again(data: JsonObject) -> JsonObject:
    """The file as validators would make it who sign a state that says just this."""
    certificate = from_json(Certificate, data)
    buckets = Buckets()
    tree = StateTree.load((), buckets)
    entries = dict(list_entries(certificate))
    update = tree.prepare({key: value for key, value in entries.items() if value is not None})
    buckets.update({path: content for path, content in update.bucket_writes.items() if content is not None})
    tree.apply(update)
    header = replace(certificate.header, state_root=tree.root)
    forged = replace(
        certificate,
        state=StatePart(*prune((key, tree.prove(key)) for key in entries)),
        header=header,
        commit=make_commit(header, by=VALIDATORS, document=make_market().chain.document),
    )
    return seal(cast(JsonObject, json.loads(json.dumps(to_json(forged)))))


def edit(*way: str | int, to: Callable[[Json], Json]) -> Forge:
    """A forger who changes one place of the file."""

    def forge(data: JsonObject) -> None:
        place: object = data
        for step in way[:-1]:
            place = cast("dict[object, object]", place)[step]
        holder = cast("dict[object, Json]", place)
        holder[way[-1]] = to(holder[way[-1]])

    return forge


def add(number: int) -> Callable[[Json], Json]:
    return lambda value: cast(int, value) + number


def put(new: Json) -> Callable[[Json], Json]:
    return lambda _: new


def leave_out_first(value: Json) -> Json:
    return cast("list[Json]", value)[1:]


def turn_round(value: Json) -> Json:
    return cast("list[Json]", value)[::-1]


def repeat_first(value: Json) -> Json:
    items = cast("list[Json]", value)
    return [*items, items[0]]


CLAIM: Final = ("claim", "record")
SOURCES: Final = ("lots", 1, "sources")  # of the lot that left a storage
FORGERIES: Final[dict[str, tuple[str, Forge, str]]] = {
    "more is claimed": ("hourly", edit(*CLAIM, "wh", to=add(1)), "claim_sum_differs"),
    "an impaired claim": ("hourly", edit(*CLAIM, "status", to=put("impaired")), "claim_not_in_force"),
    "a slice twice": ("hourly", edit(*CLAIM, "slices", to=repeat_first), "slice_named_twice"),
    "another claim's slices": ("hourly", edit("claim", "claim", to=put("11" * 16)), "slice_not_of_the_subject"),
    "a gap": ("hourly", edit("lots", 0, "slices", "slices", 0, "first_wh", to=add(1)), "slices_do_not_make_the_lot"),
    "a value": ("hourly", edit("reports", 0, "record", "values_wh", 0, to=add(1)), "meter_signature_invalid"),
    "a signature": ("hourly", edit("reports", 0, "signature", to=put("11" * 64)), "meter_signature_invalid"),
    "a mint": ("hourly", edit("reports", 0, "mint", "wh", 0, to=add(1)), "mint_differs_from_report"),
    "a correction": ("corrected", edit("lots", 0, "correction", "wh", to=add(-1)), "mint_differs_from_report"),
    "no mint": ("hourly", edit("reports", 0, "mint", to=put(None)), "mint_missing"),
    "no reissue": ("corrected", edit("lots", 0, "reissue", to=put(None)), "mint_missing"),
    "no report": ("hourly", edit("reports", to=leave_out_first), "report_missing"),
    "no lot": ("volumetric", edit("lots", to=leave_out_first), "certificate_has_more_than_it_needs"),
    "no site": ("hourly", edit("sites", to=leave_out_first), "certificate_lacks_a_record"),
    "no meter": ("hourly", edit("meters", to=leave_out_first), "certificate_lacks_a_record"),
    "nobody": ("hourly", edit("participants", to=leave_out_first), "certificate_lacks_a_record"),
    "no charge": ("stored", edit("charges", to=leave_out_first), "certificate_lacks_a_record"),
    "no sources": ("stored", edit(*SOURCES, to=put(None)), "certificate_lacks_a_record"),
    "fewer sources": ("stored", edit(*SOURCES, "sources", 0, "wh", to=add(-1)), "sources_do_not_make_the_lot"),
    "another storage": (
        "stored",
        edit("charges", 0, "record", "consumption_meter", to=put("11" * 16)),
        "charge_of_another_storage",
    ),
    "less is held": ("holding", edit("holding", "slices", 0, "end_wh", to=add(-1)), "slice_not_of_the_subject"),
    "not in order": ("holding", edit("holding", "slices", to=turn_round), "certificate_list_not_in_order"),
    "a past lifetime": ("holding", edit("parameters", "lot_lifetime_s", to=put(1)), "lot_expired"),
    "no parameters": ("holding", edit("parameters", to=put(None)), "certificate_subject_unclear"),
    "no subject": ("hourly", edit("claim", to=put(None)), "certificate_subject_unclear"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_what_all_validators_forged_is_refused_by_both(what: str) -> None:
    subject, forge, reason = FORGERIES[what]
    data = cast(JsonObject, json.loads(json.dumps(issue(subject))))
    forge(data)
    forged = prove_again(data)
    assert ask_first(forged) == reason
    assert ask_second(forged)


@pytest.mark.parametrize("subject", ["hourly", "corrected", "stored", "charge", "holding"])
def test_what_is_proved_again_unchanged_is_believed(subject: str) -> None:
    forged = prove_again(issue(subject))
    assert (ask_first(forged), ask_second(forged)) == ("", "")
