"""Checksums."""

from collections.abc import Iterable


def luhn(digits: Iterable[int]) -> bool:
    """Whether Luhn's checksum holds.

    >>> luhn([4, 2] * 8), luhn([4, 2] * 7 + [4, 3])
    (True, False)
    """
    return sum(digit if at % 2 == 0 else sum(divmod(digit * 2, 10)) for at, digit in enumerate(reversed(list(digits)))) % 10 == 0
