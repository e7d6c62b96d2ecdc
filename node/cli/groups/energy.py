"""``wattprint energy``: who holds which watt-hours; giving them away, and using them.

Owns ``transfer`` and ``claim`` by quantity and by period, which choose the slices (choosing.py). The forms by slices
derive from their transactions, as ``transfer-slices`` and ``claim-slices``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import click

from contracts_native.claims import ClaimEnergy
from contracts_native.lots import SLICES_PER_TRANSACTION_MAX, SliceRef, TransferEnergy
from contracts_native.sites import Technology
from ledger.fields import Json, get_codec
from ledger.primitives import Address, format_address, parse_address
from ledger.transaction import Payload
from node.cli.choosing import ChoiceError, choose_matching, choose_quantity, read_consumed, read_held
from node.cli.derive import describe_submitted, format_submitted, make_transaction_command
from node.cli.options import Signing, with_key
from node.cli.output import note, show
from node.cli.reads import fetch_all
from node.cli.values import FieldType
from node.client import Client, RpcError

TRANSACTIONS_MAX: Final = 100
_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)
_ADDRESS: Final = FieldType("address", get_codec(Address).schema, get_codec(Address))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which slices may be chosen."""

    site: str | None
    technology: str | None
    zone: str | None
    from_ms: int | None
    until_ms: int | None


@click.group()
def command() -> None:
    """Energy: who holds which watt-hours; transfer and claim them.

    \b
    Example:
      wattprint energy balance alice.key.json
      wattprint energy transfer --recipient wp1… --wh 25000 --technology solar --key alice.key.json
      wattprint energy claim --from 2016-06-06 --until 2016-06-13 --consumption-meter 5f0c… \\
          --statement 2016-23 --key bob.key.json
    """


command.add_command(
    make_transaction_command("energy.transfer", TransferEnergy, verb="transfer-slices"), "transfer-slices"
)
command.add_command(make_transaction_command("energy.claim", ClaimEnergy, verb="claim-slices"), "claim-slices")


def with_filter(function: Any, *, is_period_required: bool = False) -> Any:
    """The options that choose slices."""
    moment: Any = {"type": _MOMENT, "metavar": "TIME", "required": is_period_required}
    for option in (
        click.option("--until", "until_ms", help="Produced before.", **moment),
        click.option("--from", "from_ms", help="Produced from: 2016-06-06T00:00:00Z.", **moment),
        click.option("--zone", help="Only of this grid zone."),
        click.option("--technology", type=click.Choice([one.value for one in Technology]), help="Only of this kind."),
        click.option("--site", metavar="HEX", help="Only of this site."),
    ):
        function = option(function)
    return function


@command.command()
@click.option("--recipient", type=_ADDRESS, required=True, help="Who gets it: an address, or a key file.")
@click.option("--wh", type=click.IntRange(1), required=True, help="How much, in watt-hours.")
@click.option("--reference", default="", help="A note for both sides.")
@with_filter
@with_key
def transfer(signing: Signing, *, recipient: str, wh: int, reference: str, **options: Any) -> None:
    """Give watt-hours to another participant, the oldest first.

    The slices are chosen from what the sender holds; `energy transfer-slices` names them. Many slices go in several
    transactions, one after the other.
    """
    sender = signing.load_key().address
    held = read_held(_fetch_active(signing, sender, Filter(**options)))
    slices = choose_quantity(held, wh)
    payloads = [TransferEnergy(parse_address(recipient), tuple(part), reference) for part in _split(slices)]
    submit_all(signing, payloads, {"wh": wh, "slices": len(slices)})


@command.command()
@click.option("--statement", required=True, help="Number of the claim, used once by a beneficiary.")
@click.option("--beneficiary", type=_ADDRESS, help="Who uses it: an address, or a key file.  [default: the sender]")
@click.option("--purpose", default="consumption", show_default=True, help="What it is used for.")
@click.option("--wh", type=click.IntRange(1), help="How much at most.  [default: all that matches]")
@click.option(
    "--consumption-meter",
    metavar="HEX",
    help="Match interval by interval with what this meter of the beneficiary recorded: the claim is hourly.",
)
@partial(with_filter, is_period_required=True)
@with_key
def claim(
    signing: Signing,
    *,
    statement: str,
    beneficiary: str | None,
    purpose: str,
    wh: int | None,
    consumption_meter: str | None,
    **options: Any,
) -> None:
    """Use watt-hours of a period for a beneficiary, for good.

    With --consumption-meter as much as was consumed at the same time; without it the claim is volumetric. Many slices
    become several claims with the statements N, N/2, N/3, …
    """
    wanted = Filter(**options)
    assert wanted.from_ms is not None, "required"
    assert wanted.until_ms is not None, "required"
    sender = signing.load_key().address
    held = read_held(_fetch_active(signing, sender, wanted))
    held = [one for one in held if one.end_ms <= wanted.until_ms]
    if consumption_meter is not None:
        consumed = read_consumed(_fetch_consumption(signing, consumption_meter, wanted))
        period_ms = signing.run(_get_period_ms)
        slices = choose_matching(held, consumed, period_ms=period_ms, wh_max=wh)
    else:
        slices = choose_quantity(held, sum(one.wh for one in held) if wh is None else wh)
    if not slices:
        raise ChoiceError("nothing_to_claim", f"of {format_address(sender)} in this period")
    payloads = [
        ClaimEnergy(
            slices=tuple(part),
            beneficiary=sender if beneficiary is None else parse_address(beneficiary),
            purpose=purpose,
            period_start_ms=wanted.from_ms,
            period_end_ms=wanted.until_ms,
            statement=statement if index == 0 else f"{statement}/{index + 1}",
            consumption_meter=None if consumption_meter is None else bytes.fromhex(consumption_meter),
        )
        for index, part in enumerate(_split(slices))
    ]
    submit_all(signing, payloads, {"wh": sum(ref.end_wh - ref.first_wh for ref in slices), "slices": len(slices)})


def submit_all(signing: Signing, payloads: Sequence[Payload], summary: dict[str, Json]) -> None:
    """Submit payloads one after the other; the first refusal ends it. --simulate tries only the first."""
    key, cosigners = signing.load_key(), signing.load_cosigners()

    async def send(client: Client) -> list[dict[str, Json]]:
        done: list[dict[str, Json]] = []
        for payload in payloads:
            if signing.is_trial:
                signed = await client.sign(payload, key=key, cosigners=cosigners)
                answer: dict[str, Any] = await client.tx_simulate(signed.raw.hex())
                return [{"tx_id": signed.tx_id, "status": "simulated", "events": answer["events"]}]
            wait = "committed" if signing.has_to_wait else "admitted"
            try:
                submitted = await client.submit(
                    payload, key=key, cosigners=cosigners, wait=wait, timeout_ms=signing.timeout_ms
                )
            except RpcError:
                if done:
                    note(signing, f"{len(done)} of {len(payloads)} transactions are done")
                raise
            done.append(describe_submitted(submitted))
        return done

    done = signing.run(send)
    document: dict[str, Json] = {**done[0], **summary, "transactions": cast(Json, done)}
    lines = [format_submitted({**one, "events": []}) for one in done]
    show(signing, document, "\n".join([*lines, f"{summary['wh']} Wh in {summary['slices']} slices"]))


def _split(slices: Sequence[SliceRef]) -> list[Sequence[SliceRef]]:
    parts = [
        slices[first : first + SLICES_PER_TRANSACTION_MAX]
        for first in range(0, len(slices), SLICES_PER_TRANSACTION_MAX)
    ]
    if len(parts) > TRANSACTIONS_MAX:
        raise ChoiceError("too_many_slices", f"{len(slices)} slices; choose less, or a shorter period")
    return parts


def _fetch_active(signing: Signing, holder: Address, wanted: Filter) -> list[dict[str, Json]]:
    params: dict[str, Json] = {
        "holder": format_address(holder),
        "status": "active",
        "site": wanted.site,
        "technology": wanted.technology,
        "zone": wanted.zone,
        "from_ms": wanted.from_ms,
        "until_ms": wanted.until_ms,
    }
    return fetch_all(signing, "energy_slices", params, "slices")


def _fetch_consumption(signing: Signing, meter: str, wanted: Filter) -> list[dict[str, Json]]:
    params: dict[str, Json] = {"meter": meter, "channel": "consumption"}
    params |= {"from_ms": wanted.from_ms, "until_ms": wanted.until_ms}
    return fetch_all(signing, "reading_list", params, "readings")


async def _get_period_ms(client: Client) -> int:
    answer: dict[str, Any] = await client.chain_parameters()
    return int(answer["parameters"]["matching_period_s"]) * 1_000
