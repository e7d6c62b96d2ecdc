"""Small files of every form that a meter file can have, and a key file, for mutation to start from."""

from __future__ import annotations

from typing import Final

from tests.node.meter_files import test_green_button as green_button
from tests.node.meter_files import test_mscons as mscons
from tests.node.meter_files import test_nem12 as nem12
from tests.node.meter_files.test_dsmr import make_telegram

CSV: Final = (
    "start_utc,production_wh,barn_consumption_wh,barn,flag\r\n"
    "2016-06-06T00:00:00Z,5,6,,measured\r\n"
    '2016-06-06T00:15:00Z,7,,"8",estimated\r\n'
    "2016-06-06T00:45Z,0,1,2,substituted\n"
)
IDENTITY: Final = "0-0:96.1.1(4530303034303031353934373534343134)\r\n1-0:2.8.0*255(000001.500*kWh)\r\n"
TELEGRAMS: Final = "".join(
    make_telegram(f"1903241500{second:02}W", 1_000 + 10 * second, extra=IDENTITY) for second in (0, 10, 20)
)
OLD_TELEGRAM: Final = make_telegram("", 5, has_crc=False).replace("\r\n", "\n")
FEED: Final = green_button.make_feed(
    green_button.make_value(900, 600), green_button.make_value(1_800, 601, quality=8), powerOfTenMultiplier=-3
)
DAYS: Final = (
    nem12.OPEN
    + nem12.CHANNEL.replace("30,", "60,")
    + nem12.make_day("20040201", quality="V", count=24)
    + "400,1,10,A,,\n400,11,24,S14,1,\n500,O,S01,,20040202120025,001123.5\n900\n"
)
HOURS: Final = [
    mscons.make_value("1.5", f"20200101{hour:02}00?+01", f"20200101{hour + 1:02}00?+01", qualifier)
    for hour, qualifier in enumerate(("220", "67", "20"))
]
MESSAGE: Final = mscons.HEAD + "".join(HOURS) + mscons.TAIL

METER_FILES: Final = {
    "csv": (CSV.encode(), CSV.replace("\r\n", "\n").encode("utf-8-sig")),
    "dsmr": (TELEGRAMS.encode(), OLD_TELEGRAM.encode()),
    "greenbutton": (FEED.encode(), FEED.encode("utf-16")),
    "mscons": (MESSAGE.encode(), b"UNA:+.? '\r\n" + MESSAGE.replace("'", "'\r\n").encode()),
    "nem12": (DAYS.encode(), DAYS.replace(",kWh,", ',"kWh",').encode()),
}

# Sealed under "correct horse" at the least cost that a file can ask for.
KEY_FILE: Final = b"""{
  "format": "wattprint-key",
  "version": 1,
  "scheme": "ed25519",
  "public_key": "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
  "address": "wp1rw3fpta76927z0d0swetuzsafvrwywg30c35hn",
  "encryption": "scrypt-chacha20poly1305",
  "kdf": {
    "n": 2,
    "r": 8,
    "p": 1,
    "salt": "8461a525d40d01377de3e23d57e0e74a"
  },
  "nonce": "767296067a5c2bdd17d014f4",
  "secret": "fe30a8568a42432a72ac391f38a7b5440eb06aacd742fecfa25058c62314a4aa8d815744503be4432e727597e28f3688",
  "checksum": "e3431d2958f48a0b"
}
"""
