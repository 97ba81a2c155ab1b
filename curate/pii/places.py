"""Where a person lives and when they were born: street addresses, coordinates, dates of birth."""

import regex

from curate.pii.context import context_screen
from curate.pii.presidio import Pattern, PatternRecognizer
from curate.pii.screen import Finder, by_pattern

_CAP = r"[\p{Lu}\d][\p{L}\p{M}\d'’.\-]{0,30}"  # a word of a street's name
_NUMBER = r"(?<![\w.,/$£€\-])\d{1,5}(?:[\-/]\d{1,4})?[A-Za-z]?"
_TYPE = (
    r"(?:Street|St|Str|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Place|Pl|Terrace|Ter|Close|Crescent|Cres|Square|Sq|Parkway|Pkwy"
    r"|Highway|Hwy|Circle|Cir|Trail|Trl|Mews|Gardens|Grove|Hill|Walk|Row|Alley|Plaza|Loop|Turnpike|Pike|Expressway|Embankment|Quay|Rise|Vale|Wharf)"
)
_UNIT = r"(?:Apartment|Apt|Suite|Ste|Unit|Flat|Room|Floor|Fl|Bldg|Building)\.?[ ]?#?[ ]?[A-Za-z]?\d{1,5}[A-Za-z]?"
_TOWN = rf"(?:,?[ \n]{{1,2}}{_UNIT})?(?:,[ \n]{{0,2}}(?:\p{{Lu}}[\p{{L}}'’.\-]{{1,30}}[ ]?){{1,3}})?(?:,?[ \n]{{0,2}}[A-Z]{{2}}[ ]\d{{5}}(?:-\d{{4}})?)?(?:,?[ \n]{{0,2}}[A-Z]{{1,2}}\d[A-Z\d]?[ ]\d[A-Z]{{2}})?"
# Streets named in one word with their type at its end (German, Dutch, Nordic), the number after it.
_ONE_WORD = (
    r"\p{Lu}[\p{L}\-]{1,40}(?:straße|strasse|str\.|weg|platz|allee|gasse|straat|laan|plein|kade|gracht|dijk|singel|gata|gatan|gaten|vej|vegen|veien|vägen"
    r"|stræde|katu|kuja|polku|tänav|iela|gatve|götu|vegur|braut|stígur)"
)
# Type first: Romance, Slavic and others, the number after the name.
_TYPE_FIRST = (
    r"(?:Rua|Rue|Calle|C/|Avenida|Avda\.?|Av\.|Via|Viale|Piazza|Corso|Largo|Vicolo|Plaza|Paseo|Carrer|Camino|Carrera|Travessa|Praça|Strada|Str\.|Bd\.|Boulevard|Quai|Chemin|Allée|Impasse|Place"
    r"|ul\.|Ul\.|ulica|Ulica|al\.|Al\.|os\.|pl\.|ulice|utca|Sokak|Cadde|Cad\.|Jalan|Jl\.|улица|ул\.|проспект|пр\.)"
)
_LITTLE = r"(?:(?:de|del|della|delle|dei|di|da|do|dos|das|du|des|la|le|les|los|las|l'|el|y|e|of|the|of the|van|von|der|den)[ ]){0,3}"
_HOUSE = r",?[ ](?:n[º°o.]{1,2}[ ]?)?\d{1,5}(?:[ ]?[A-Za-z](?!\w))?(?:/\d{1,4})?"


class StreetAddress(PatternRecognizer):  # type: ignore[misc]
    """A street with its number, and the flat, town and code that follow."""

    def __init__(self) -> None:
        shapes = (
            (rf"(?:{_UNIT},?[ \n]{{1,2}})?{_NUMBER},?[ ](?:[NSEW]{{1,2}}\.?[ ])?(?:{_CAP}[ ]){{1,4}}{_TYPE}(?![\p{{L}}\d])\.?{_TOWN}", 0.6),
            (rf"(?:{_UNIT},?[ \n]{{1,2}})?{_NUMBER},?[ ](?:bis|ter)?[ ]?(?:rue|avenue|boulevard|bd|chemin|allée|impasse|place|quai|route)[ ]{_LITTLE}(?:{_CAP}[ ]?){{1,4}}", 0.6),
            (rf"{_ONE_WORD}[ ]\d{{1,4}}(?:[ ]?[A-Za-z](?!\w))?(?:[ ][A-Z])?(?!\d)", 0.6),
            (rf"(?<!\w){_TYPE_FIRST}[ ]{_LITTLE}(?:{_CAP}[ ]?{_LITTLE}){{1,4}}(?<=[\p{{L}}. ]){_HOUSE.replace(',?[ ]', ',?[ ]?')}(?!\d)", 0.6),
            (rf"{_NUMBER}[ ](?:{_CAP}[ ]){{1,4}}(?:u|út|utca|tér|sok|cad|mah)\.?[ ]\d{{1,4}}", 0.5),
            (r"(?<!\w)P\.?[ ]?O\.?[ ]?Box[ ]\d{1,6}", 0.6),
            (
                r"(?i:\b(?:home |mailing |shipping |postal |billing |delivery |street )?address(?: is|:)|\b(?:i|we|she|he|they) lives? (?:at|in|on)|\b(?:ship|deliver|send) (?:it |them |this )?to|\bresid(?:es?|ing) at)"
                rf"[ \n]{{1,2}}\K(?:{_NUMBER}[ ](?:{_CAP}[ ,.]{{0,2}}){{1,6}}|(?:{_CAP}[ ]){{1,4}}\d{{1,5}}[A-Za-z]?(?![\w.])){_TOWN}",
                0.5,
            ),
        )  # fmt: skip
        super().__init__(
            "STREET_ADDRESS",
            name="StreetAddress",
            patterns=[Pattern(f"Street {at}", shape, score) for at, (shape, score) in enumerate(shapes, 1)],
            global_regex_flags=regex.MULTILINE,
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """A date or a count instead of a house: `2 May Drive` is one, `1990 World Open` is none."""
        return not regex.search(r"\d", pattern_text)


class Coordinates(PatternRecognizer):  # type: ignore[misc]
    """Latitude and longitude: with degrees or named; a bare pair needs a word such as `GPS`."""

    def __init__(self) -> None:
        number = r"[+\-−]?\d{1,3}\.\d{3,10}"
        shapes = (
            (r"(?<![\d.])\d{1,2}(?:\.\d{1,10})?[ ]?[°º](?:[ ]?\d{1,2}(?:\.\d+)?[ ]?['′’](?:[ ]?\d{1,2}(?:\.\d{1,6})?[ ]?(?:[\"″”]|''|′′))?)?[ ]?[NS][,;/ ]{1,3}\d{1,3}(?:\.\d{1,10})?[ ]?[°º](?:[ ]?\d{1,2}(?:\.\d+)?[ ]?['′’](?:[ ]?\d{1,2}(?:\.\d{1,6})?[ ]?(?:[\"″”]|''|′′))?)?[ ]?[EWO](?!\w)", 0.8),
            (rf"(?i:\blat(?:itude)?[\"']?\s?[:=]\s?[\"']?{number}[\"']?[°,;\s]{{0,4}}[\"']?(?:lon|lng|long|longitude)[\"']?\s?[:=]\s?[\"']?{number})", 0.8),
            (r"(?<![\d.\w])[+\-−]?\d{1,2}\.\d{4,10},\s?[+\-−]?\d{1,3}\.\d{4,10}(?![\d.\w])", 0.2),
        )  # fmt: skip
        super().__init__(
            "COORDINATES",
            name="Coordinates",
            patterns=[Pattern(f"Coordinates {at}", shape, score) for at, (shape, score) in enumerate(shapes, 1)],
            context=["gps", "coordinates", "latitude", "longitude", "location", "located", "geo", "my position"],
            global_regex_flags=regex.MULTILINE,
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """Beyond the poles or the date line."""
        if "°" in pattern_text or "º" in pattern_text:
            return False
        north, east = (abs(float(each)) for each in regex.findall(r"\d+\.\d+", pattern_text)[:2])
        return north > 90 or east > 180


_MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
_YEAR = r"(?:1[89]|20)\d{2}"
BIRTH = ("born", "date of birth", "dob", "d.o.b", "birthday", "birth date", "birthdate", "date of birth", "geboren", "geburtsdatum", "fecha de nacimiento", "nacido", "nacida", "né le", "née le", "date de naissance", "data di nascita", "nato il", "nata il", "data de nascimento", "geboortedatum", "data urodzenia")  # fmt: skip


class BirthDate(PatternRecognizer):  # type: ignore[misc]
    """A date beside a word of birth."""

    def __init__(self) -> None:
        shapes = (
            rf"(?<![\d/.\-])(?:0?[1-9]|[12]\d|3[01])[/.\-](?:0?[1-9]|[12]\d|3[01])[/.\-](?:{_YEAR}|\d{{2}})(?![\d/\-])",
            rf"(?<![\d/.\-]){_YEAR}[/.\-](?:0?[1-9]|1[0-2])[/.\-](?:0?[1-9]|[12]\d|3[01])(?![\d/\-])",
            rf"(?<!\w)(?:the )?\d{{1,2}}(?:st|nd|rd|th)?[ ](?:of )?{_MONTH}\.?,?[ ]{_YEAR}(?!\d)",
            rf"(?<!\w){_MONTH}\.?[ ]\d{{1,2}}(?:st|nd|rd|th)?,?[ ]{_YEAR}(?!\d)",
        )
        super().__init__(
            "DATE_OF_BIRTH",
            name="BirthDate",
            patterns=[Pattern(f"Birth date {at}", shape, 0.3) for at, shape in enumerate(shapes, 1)],
            context=list(BIRTH),
            global_regex_flags=regex.IGNORECASE | regex.MULTILINE,
        )


_ENDS = _ONE_WORD.partition("(?:")[2]
_WORDS = r"(?:[\p{Lu}0-9][\p{L}\p{M}0-9'’.\-]*[ ])"  # _CAP without its bound, which would cost the screen its speed
_STREET_SCREENS = (  # one for each shape, in their order
    rf"[0-9][A-Za-z]?,?[ ]{_WORDS}+{_TYPE}",
    r"[0-9][A-Za-z]?,?[ ](?:bis|ter)?[ ]?(?:rue|avenue|boulevard|bd|chemin|allée|impasse|place|quai|route)[ ]",
    rf"\p{{Lu}}[\p{{L}}\-]+(?:{_ENDS}[ ][0-9]",
    rf"{_TYPE_FIRST}[ ]{_LITTLE.removesuffix('{0,3}')}*[\p{{Lu}}0-9][^\n]*[0-9]",
    rf"[0-9][A-Za-z]?[ ]{_WORDS}+(?:u|út|utca|tér|sok|cad|mah)\.?[ ][0-9]",
    r"O\.?[ ]?Box[ ][0-9]",
    r"(?i:address(?: is|:)|lives? (?:at|in|on)|(?:ship|deliver|send) (?:it |them |this )?to|resid(?:es?|ing) at)[ \n]{1,2}"
    rf"(?:[0-9]|{_WORDS}+[0-9])",
)
_MONTHS = f"(?i:{_MONTH[3:-1]})"
_DATE_SCREENS = (
    r"[0-9][/.\-][0-9]{1,2}[/.\-][0-9]{2}",
    r"[0-9]{4}[/.\-][0-9]{1,2}[/.\-][0-9]",
    rf"[0-9](?i:st|nd|rd|th)?[ ](?i:of )?{_MONTHS}\.?,?[ ](?:1[89]|20)[0-9]{{2}}",
    rf"{_MONTHS}\.?[ ][0-9]{{1,2}}(?i:st|nd|rd|th)?,?[ ](?:1[89]|20)[0-9]{{2}}",
)
_DATE_SCREEN = r"[0-9][/.\-][0-9]{1,2}[/.\-][0-9]|" + _MONTHS


def finders() -> tuple[Finder, ...]:
    """New recognizers with their screens."""
    return (
        by_pattern(StreetAddress(), ("[0-9]",), _STREET_SCREENS),
        Finder(Coordinates(), (r"[0-9]\.[0-9]|[°º]", r"[°º]|(?i:lat)|[0-9]\.[0-9]{4,10},\s?[+\-−]?[0-9]{1,3}\.[0-9]{4}")),
        by_pattern(BirthDate(), ("[0-9]", _DATE_SCREEN, context_screen(BIRTH)), _DATE_SCREENS),
    )
