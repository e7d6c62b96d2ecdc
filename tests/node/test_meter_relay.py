"""The relay loses nothing and reports nothing twice, whenever its power goes and whoever is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import make_report_message
from ledger.primitives import is_valid_meter_signature
from node.meters.outbox import Outbox
from node.meters.relay import (
    REFUSALS_MAX,
    Contents,
    Edge,
    Forget,
    Interval,
    SaveEdge,
    SaveSealed,
    Sealed,
    Unseal,
)
from node.meters.reports import MeterError, Stand, make_stretch
from tests.node.meters_relay import METER, PRODUCTION, QUARTER_MS, START_MS, Killed, Ledger, Machine, MemoryOutbox, play

COUNTERS = [5_000, 5_100, 5_100, 5_350, 5_900]
EXPECTED = {(PRODUCTION, START_MS + i * QUARTER_MS): wh for i, wh in enumerate([100, 0, 250, 550])}


def finish(machine: Machine) -> None:
    """Until the outbox is empty."""
    machine.wake()
    assert machine.relay.waiting == 0
    assert machine.outbox.read().waiting == ()
    assert machine.outbox.read().sealed is None


def test_each_interval_is_reported_as_it_ends() -> None:
    machine = Machine(Ledger(), MemoryOutbox())
    play(machine, COUNTERS, restart=lambda: None)
    assert machine.ledger.values == EXPECTED
    assert [one.sequence for one in machine.ledger.sent] == [1, 2, 3, 4]
    assert [one.register_start_wh for one in machine.ledger.sent] == COUNTERS[:-1]
    report = machine.ledger.sent[-1]
    message = make_report_message(METER.chain_id, report)
    assert is_valid_meter_signature(METER.key.public_key, message, report.signature)


@pytest.mark.parametrize("loses_answers", [False, True])
@pytest.mark.parametrize("killed_at", range(60))
def test_a_kill_at_any_step_loses_nothing_and_reports_nothing_twice(killed_at: int, loses_answers: bool) -> None:
    machine = Machine(Ledger(loses_answers=loses_answers), MemoryOutbox(), steps_left=killed_at)

    def restart() -> None:
        machine.steps_left = 10**9
        machine.start()

    play(machine, COUNTERS, restart)
    machine.ledger.loses_answers = False
    machine.steps_left = 10**9
    finish(machine)
    assert machine.ledger.values == EXPECTED


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
def test_a_power_that_goes_again_and_again_is_only_late(every: int) -> None:
    machine = Machine(Ledger(), MemoryOutbox(), steps_left=every)

    def restart() -> None:
        machine.steps_left = 10**9
        machine.start()
        machine.steps_left = max(every, 3)

    for place, counter_wh in enumerate(COUNTERS):
        for _ in range(5):
            try:
                machine.show(START_MS + place * QUARTER_MS, counter_wh)
                break
            except Killed:
                restart()
    machine.steps_left = 10**9
    machine.start()
    finish(machine)
    assert machine.ledger.values == EXPECTED


def test_while_the_node_is_away_intervals_wait_and_then_go_in_one_report() -> None:
    machine = Machine(Ledger(is_away=True), MemoryOutbox())
    play(machine, COUNTERS, restart=lambda: None)
    assert (machine.relay.waiting, machine.ledger.sent) == (4, [])
    assert "no connection; again in 1 s" in machine.notes[0]
    machine.ledger.is_away = False
    finish(machine)
    assert machine.ledger.values == EXPECTED
    assert [one.values_wh for one in machine.ledger.sent] == [(100, 0, 250, 550)]


def test_waiting_grows_to_a_minute_and_ends_with_the_first_answer() -> None:
    machine = Machine(Ledger(is_away=True), MemoryOutbox())
    machine.show(START_MS, 0)
    machine.show(START_MS + QUARTER_MS, 10)
    machine.wake()
    delays = [note.split("again in ")[1].split(" s")[0] for note in machine.notes]
    assert delays[:8] == ["1", "2", "4", "8", "16", "32", "60", "60"]
    machine.ledger.is_away = False
    finish(machine)
    assert len(machine.ledger.values) == 1


def test_a_report_that_arrived_unheard_is_not_sent_again() -> None:
    machine = Machine(Ledger(loses_answers=True), MemoryOutbox())
    play(machine, COUNTERS[:2], restart=lambda: None)
    machine.ledger.loses_answers = False
    finish(machine)
    assert len(machine.ledger.sent) == 1


def test_register_goes_on_from_what_a_file_left_on_the_ledger() -> None:
    ledger = Ledger()
    ledger.stands[PRODUCTION] = Stand(7, START_MS, 340)
    machine = Machine(ledger, MemoryOutbox())
    play(machine, COUNTERS, restart=lambda: None)
    assert ledger.values == EXPECTED
    assert (ledger.sent[0].sequence, ledger.sent[0].register_start_wh) == (8, 340)
    assert ledger.stands[PRODUCTION] == Stand(11, START_MS + 4 * QUARTER_MS, 340 + 900)


def test_a_gap_between_telegrams_stays_a_gap() -> None:
    machine = Machine(Ledger(), MemoryOutbox())
    machine.show(START_MS, 0)
    machine.show(START_MS + QUARTER_MS + 10_001, 50)  # too late to be the counter at the edge
    machine.show(START_MS + 2 * QUARTER_MS, 90)
    machine.show(START_MS + 3 * QUARTER_MS + 10_000, 100)
    assert machine.ledger.values == {(PRODUCTION, START_MS + 2 * QUARTER_MS): 10}
    assert "that is a gap" in machine.notes[0]
    assert machine.ledger.sent[0].register_start_wh == 90


def test_a_counter_that_was_replaced_begins_anew() -> None:
    machine = Machine(Ledger(), MemoryOutbox())
    for place, counter_wh in enumerate([900, 950, 3, 8]):
        machine.show(START_MS + place * QUARTER_MS, counter_wh)
    assert "runs backwards" in machine.notes[0]
    assert list(machine.ledger.values.values()) == [50, 5]
    assert machine.ledger.sent[1].register_start_wh == 950  # the ledger's register never does


def test_a_telegram_that_comes_twice_counts_once() -> None:
    machine = Machine(Ledger(), MemoryOutbox())
    for time_ms, counter_wh in ((0, 0), (0, 0), (1_000, 1), (QUARTER_MS, 10), (QUARTER_MS, 10), (QUARTER_MS - 1, 9)):
        machine.show(START_MS + time_ms, counter_wh)
    assert list(machine.ledger.values.values()) == [10]


def test_two_channels_are_reported_each_with_its_own_numbers() -> None:
    machine = Machine(Ledger(is_away=True), MemoryOutbox())
    for place in range(4):
        for channel in Channel:
            machine.show(START_MS + place * QUARTER_MS, 100 * place, channel)
    machine.ledger.is_away = False
    finish(machine)
    assert sorted((one.channel, one.sequence, one.values_wh) for one in machine.ledger.sent) == [
        (Channel.CONSUMPTION, 1, (100, 100, 100)),
        (Channel.PRODUCTION, 1, (100, 100, 100)),
    ]


def test_what_the_ledger_refuses_is_set_aside_and_tried_again_at_the_next_start() -> None:
    machine = Machine(Ledger(refusal="meter_not_active"), MemoryOutbox())
    play(machine, COUNTERS[:3], restart=lambda: None)
    machine.wake()
    assert len(machine.ledger.sent) == REFUSALS_MAX
    assert (machine.relay.waiting, machine.relay.aside) == (0, 2)
    assert any(note.startswith("set aside: 2 intervals") for note in machine.notes)
    machine.ledger.refusal = ""
    machine.show(START_MS + 3 * QUARTER_MS, COUNTERS[3])  # the others have their turn
    assert len(machine.ledger.values) == 1
    machine.start()
    machine.ledger.stands[PRODUCTION] = Stand(0, 0, 0)  # the double of the ledger knows no backfill
    finish(machine)
    assert len(machine.ledger.values) == 3


def test_too_early_is_not_refused_for_good() -> None:
    machine = Machine(Ledger(refusal="reading_in_the_future"), MemoryOutbox())
    play(machine, COUNTERS[:2], restart=lambda: None)
    for _ in range(3):
        machine.wake()
    assert (machine.relay.waiting, machine.relay.aside) == (1, 0)
    machine.ledger.refusal = ""
    finish(machine)


def test_intervals_that_somebody_else_reported_are_forgotten() -> None:
    machine = Machine(Ledger(is_away=True), MemoryOutbox())
    play(machine, COUNTERS, restart=lambda: None)
    machine.ledger.is_away = False
    machine.ledger.values[PRODUCTION, START_MS + QUARTER_MS] = 0
    finish(machine)
    assert machine.ledger.values == EXPECTED


# — the outbox on disk —


def open_outbox(path: Path) -> Outbox:
    return Outbox(path, chain_id=METER.chain_id, meter=METER.meter)


class DiskOutbox(MemoryOutbox):
    """Every order goes to the disk as well, and both must then hold the same."""

    def __init__(self, disk: Outbox) -> None:
        super().__init__(disk.read())
        self.disk = disk

    def save(self, order: SaveEdge | SaveSealed | Forget | Unseal) -> None:
        super().save(order)
        self.disk.save(order)
        assert sort(self.disk.read()) == sort(self.contents)


def sort(contents: Contents) -> Contents:
    return replace(contents, waiting=tuple(sorted(contents.waiting)), aside=tuple(sorted(contents.aside)))


@pytest.mark.parametrize("killed_at", range(0, 40, 3))
def test_the_outbox_on_disk_keeps_what_the_one_in_memory_keeps(tmp_path: Path, killed_at: int) -> None:
    with open_outbox(tmp_path / "outbox") as disk:
        machine = Machine(Ledger(loses_answers=killed_at % 2 == 1), DiskOutbox(disk), steps_left=killed_at)

        def restart() -> None:
            machine.steps_left = 10**9
            machine.start()

        play(machine, COUNTERS, restart)
        machine.ledger.loses_answers = False
        machine.steps_left = 10**9
        finish(machine)
        assert machine.ledger.values == EXPECTED


def test_a_sealed_report_comes_back_from_the_disk_byte_for_byte(tmp_path: Path) -> None:
    interval = Interval(START_MS, PRODUCTION, 900, 5, 15)
    stretch = make_stretch(START_MS, 900, [10], register_start_wh=5)
    sealed = Sealed(METER.sign(PRODUCTION, stretch, sequence=3), (interval,))
    with open_outbox(tmp_path / "outbox") as outbox:
        outbox.save(SaveEdge(PRODUCTION, Edge(START_MS + QUARTER_MS, 15), interval))
        outbox.save(SaveSealed(sealed))
    with open_outbox(tmp_path / "outbox") as outbox:
        assert outbox.read() == Contents({PRODUCTION: Edge(START_MS + QUARTER_MS, 15)}, (), sealed, ())


def test_an_outbox_has_one_relay_and_one_meter(tmp_path: Path) -> None:
    with open_outbox(tmp_path / "outbox"), pytest.raises(MeterError, match="outbox_in_use"):
        open_outbox(tmp_path / "outbox")
    with pytest.raises(MeterError, match="outbox_of_another_meter"):
        Outbox(tmp_path / "outbox", chain_id="another-chain", meter=METER.meter)
    (tmp_path / "text").write_text("no database, but long enough to be looked at" * 40)
    with pytest.raises(MeterError, match="outbox_not_usable"):
        open_outbox(tmp_path / "text")
