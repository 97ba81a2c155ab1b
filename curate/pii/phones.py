"""Telephone numbers that nobody has, in the format of the number they replace."""

import phonenumbers

# Kept for fiction by regulators: country code -> (first digits of a mobile national number, mobile stem, other stem). The rest is drawn.
_FICTION: dict[int, tuple[tuple[str, ...], str, str]] = {
    44: (("7",), "7700900", "2079460"),  # Ofcom
    49: (("15", "16", "17"), "3023125", "3023125"),  # Bundesnetzagentur
    33: (("6", "7"), "63998", "19900"),  # Arcep
    61: (("4",), "491570", "25550"),  # ACMA
    46: (("7",), "8465004", "8465004"),  # PTS
}
_NOWHERE = "999"  # a country code that is not assigned


def phone(value: str, same: str, number: int) -> str:
    """A number kept for fiction: by the regulators of `_FICTION`, 555-01xx in North America, 01632 960xxx, else country code 999.

    `same` is the value in E.164 (or its digits), `number` 64 random bits.

    >>> phone("(212) 736-5000", "+12127365000", 7)
    '(200) 555-0107'
    >>> phone("+49 30 901820", "+4930901820", 123)
    '+49 30 23125123'
    """
    drawn = f"{number:020d}"
    try:
        parsed = phonenumbers.parse(same, None) if same.startswith("+") else None
    except phonenumbers.NumberParseException:
        parsed = None
    if parsed is not None and parsed.country_code == 1 and len(same) == 12:
        area = 200 + number // 100 % 790
        return _laid(value, parsed, f"{area + (area % 100 == 11)}55501{number % 100:02d}")
    if parsed is not None and parsed.country_code in _FICTION:
        national = str(parsed.national_number)
        heads, mobile, fixed = _FICTION[parsed.country_code]
        stem = mobile if national.startswith(heads) else fixed
        if parsed.country_code == 44 and len(national) == 9:
            stem = "163296"
        return _laid(value, parsed, stem + drawn[-max(len(national) - len(stem), 3) :])
    digits = sum(each.isdigit() for each in value)
    return _over(value, (_NOWHERE + drawn[::-1] + drawn)[:digits])


def _laid(value: str, parsed: phonenumbers.PhoneNumber, national: str) -> str:
    """The new national number in the layout of `value`; in the country's own layout if it has another length."""
    digits = [each for each in value if each.isdigit()]
    head = len(digits) - len(str(parsed.national_number))
    if head >= 0 and len(str(parsed.national_number)) == len(national):
        return _over(value, "".join(digits[:head]) + national)
    made = phonenumbers.PhoneNumber(country_code=parsed.country_code, national_number=int(national))
    abroad = value.lstrip("( ").startswith(("+", "00"))
    style = phonenumbers.PhoneNumberFormat.INTERNATIONAL if abroad else phonenumbers.PhoneNumberFormat.NATIONAL
    return str(phonenumbers.format_number(made, style))


def _over(value: str, digits: str) -> str:
    """`digits` laid over the digits of `value`."""
    left = iter(digits)
    return "".join(next(left, "0") if each.isdigit() else each for each in value)
