"""Numbers of meter files: decimal text and units to integers, without a float on the way.

Owns the smallest energy that is told apart, 10⁻¹² Wh, and the units that utilities write.
"""

from __future__ import annotations

import re
from typing import Final

PICO_DIGITS: Final = 12
PICO_PER_WH: Final = 10**PICO_DIGITS
DIGITS_MAX: Final = 24

# Exponents of ten to the Wh. Letters are compared in lower case: utilities write KWH and kWh.
ENERGY_UNITS: Final = {"wh": 0, "kwh": 3, "mwh": 6, "gwh": 9}
OTHER_UNITS: Final = frozenset(  # well known, and no active energy
    {
        *("varh", "kvarh", "mvarh", "vah", "kvah", "mvah"),
        *("w", "kw", "mw", "var", "kvar", "mvar", "va", "kva", "mva", "v", "kv", "a", "ka", "pf", "hz"),
    }
)
_DECIMAL: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?")


def find_energy_exponent(unit: str) -> int | None:
    """The power of ten that turns a unit of energy into Wh, or None for any other unit."""
    return ENERGY_UNITS.get(unit.strip().lower())


def _ten_to(power: int) -> int:
    return int("1" + "0" * power)


def is_other_unit(unit: str) -> bool:
    """Whether a unit is well known, and of something else than active energy."""
    return unit.strip().lower() in OTHER_UNITS


class NotExact(Exception):
    """A text is no number, or no exact one; the argument is the reason."""


def parse_pico_wh(text: str, exponent: int) -> int:
    """Decimal text × 10^``exponent`` Wh, in 10⁻¹² Wh.

    Raises ``NotExact``: ``value_not_a_number``, ``value_too_large``, ``value_too_precise``.
    """
    match = _DECIMAL.fullmatch(text.strip())
    if match is None or not (match[2] or match[3]):
        raise NotExact("value_not_a_number")
    digits, fraction = match[2] + (match[3] or ""), match[3] or ""
    if len(digits) > DIGITS_MAX:
        raise NotExact("value_too_large" if len(match[2]) > DIGITS_MAX // 2 else "value_too_precise")
    power = exponent + PICO_DIGITS - len(fraction)
    value = int(digits)
    if power >= 0:
        value *= _ten_to(power)
    else:
        value, rest = divmod(value, _ten_to(-power))
        if rest:
            raise NotExact("value_too_precise")
    return -value if match[1] == "-" else value
