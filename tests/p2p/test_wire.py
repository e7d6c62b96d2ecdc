"""What a wire hands on, what it takes after the end, and what is left of a connection that was cut. No sockets."""

from __future__ import annotations

import asyncio

import pytest

from p2p.wire import LAST_BYTES_MAX, Wire


class Above(asyncio.Protocol):
    """The protocol that the wire stands before; it writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> bool | None:
        self.heard.append("eof")
        return None

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)


class Below(asyncio.Transport):
    """A transport without a socket; it writes down what is asked of it."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.asked: list[str] = []

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def pause_reading(self) -> None:
        self.asked.append("pause_reading")

    def abort(self) -> None:
        self.asked.append("abort")


async def test_until_the_end_everything_is_handed_on_and_counted() -> None:
    above = Above()
    below = Below(above)
    wire = Wire(below)
    assert below.get_protocol() is wire
    wire.data_received(bytes(2 * LAST_BYTES_MAX))
    wire.pause_writing()
    wire.resume_writing()
    wire.data_received(b"more")
    wire.eof_received()
    assert above.heard == [bytes(2 * LAST_BYTES_MAX), "pause", "resume", b"more", "eof"]
    assert wire.arrived_bytes == 2 * LAST_BYTES_MAX + 4
    assert below.asked == []


async def test_after_the_end_a_little_is_taken_and_then_the_peer_is_left_unread() -> None:
    above = Above()
    below = Below(above)
    wire = Wire(below)
    wire.data_received(b"before")
    wire.hang_up()
    wire.data_received(bytes(LAST_BYTES_MAX - 8))
    wire.hang_up()  # no second allowance
    wire.data_received(b"farewell")
    assert below.asked == []
    wire.data_received(b"one byte too many, and all that follow")
    wire.data_received(b"what the transport had taken already")
    assert above.heard == [b"before", bytes(LAST_BYTES_MAX - 8), b"farewell"]
    assert set(below.asked) == {"pause_reading"}


async def test_who_waits_for_the_end_hears_of_it_and_so_does_the_protocol_above() -> None:
    above = Above()
    below = Below(above)
    wire = Wire(below)
    wire.cut()
    assert below.asked == ["abort"]
    assert not wire.lost.done()
    lost = ConnectionResetError("by peer")
    wire.connection_lost(lost)
    assert wire.lost.done()
    assert above.heard == [lost]


async def test_the_end_is_heard_also_by_whoever_gave_up_waiting() -> None:
    wire = Wire(Below(Above()))
    wire.lost.cancel()
    wire.connection_lost(None)  # no complaint


@pytest.mark.parametrize("transport", [None, Below(asyncio.BaseProtocol())], ids=["no_transport", "no_protocol"])
async def test_a_transport_that_is_lost_already_is_refused(transport: asyncio.Transport | None) -> None:
    with pytest.raises(ConnectionResetError, match="lost before"):
        Wire(transport)
