"""The calendar of meter files: civil time to seconds since 1970 and back, by arithmetic alone.

Owns no time zone: an offset comes from the file, or from its format's rule. Without the library's local clock at hand
no reader can fall for the zone of the machine that it runs on.
"""

from __future__ import annotations

import re
from typing import Final

DAY_S: Final = 86_400
YEAR_LEAST: Final = 1970
YEAR_MOST: Final = 9_999
_DAYS_OF_MONTHS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_TO_1970: Final = 719_468  # from 1 March of the year 0
_DAYS_OF_ERA: Final = 146_097  # 400 years
_UTC_TEXT: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?Z")


def find_instant_s(year: int, month: int, day: int, *clock: int) -> int | None:
    """Seconds since 1970 of a civil time that is read as UTC, or None if there is no such time. ``clock`` is hour,
    minute and second, as many of them as there are."""
    hour, minute, second = (*clock, 0, 0, 0)[:3]
    if not (YEAR_LEAST <= year <= YEAR_MOST and 1 <= month <= 12 and 1 <= day <= _count_days(year, month)):
        return None
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return None
    shifted = year - (month <= 2)  # years that begin in March have their leap day at the end
    era, year_of_era = divmod(shifted, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    days = era * _DAYS_OF_ERA + day_of_era - _DAYS_TO_1970
    return days * DAY_S + hour * 3_600 + minute * 60 + second


def parse_utc(text: str) -> int | None:
    """Milliseconds since 1970 of ISO 8601 text that ends in Z, or None."""
    match = _UTC_TEXT.fullmatch(text.strip())
    if match is None:
        return None
    instant_s = find_instant_s(*(int(part or 0) for part in match.groups()))
    return None if instant_s is None else instant_s * 1_000


def format_utc(instant_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, to the second; a fraction is shown where there is one."""
    seconds, rest_ms = divmod(instant_ms, 1_000)
    days, second_of_day = divmod(seconds, DAY_S)
    era, day_of_era = divmod(days + _DAYS_TO_1970, _DAYS_OF_ERA)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12 + 1
    year = year_of_era + era * 400 + (month <= 2)
    hour, minute, second = second_of_day // 3_600, second_of_day // 60 % 60, second_of_day % 60
    fraction = f".{rest_ms:03}" if rest_ms else ""
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"


def _count_days(year: int, month: int) -> int:
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and is_leap else _DAYS_OF_MONTHS[month - 1]
