"""What names look like: Faker's lists of them, the titles before them, and the names that are common words too."""

import importlib
from functools import lru_cache

import regex

from curate.pii.identity import plain

LOCALES = (
    "en_GB",
    "en_US",
    "de_DE",
    "fr_FR",
    "es_ES",
    "it_IT",
    "pl_PL",
    "nl_NL",
    "pt_BR",
    "sv_SE",
    "cs_CZ",
    "tr_TR",
    "en_IN",
)  # first wins
SCRIPTS = {
    "Cyrillic": "ru_RU", "Greek": "el_GR", "Hiragana": "ja_JP", "Katakana": "ja_JP", "Hangul": "ko_KR", "Han": "zh_CN", "Arabic": "ar_SA",
    "Hebrew": "he_IL", "Devanagari": "hi_IN", "Thai": "th_TH", "Georgian": "ka_GE", "Armenian": "hy_AM", "Bengali": "bn_BD",
    "Tamil": "ta_IN",
}  # fmt: skip
TITLES = {  # title without its dot -> female, male, or neither
    **dict.fromkeys(
        ("ms", "mrs", "miss", "lady", "dame", "madam", "mme", "mlle", "frau", "sra", "señora", "signora", "pani", "dona"), "female"
    ),
    **dict.fromkeys(("mr", "sir", "lord", "herr", "señor", "signor", "pan", "monsieur"), "male"),
    **dict.fromkeys(("mx", "dr", "prof", "professor", "doctor", "rev", "reverend", "captain", "capt", "sgt", "judge", "sr"), ""),
}
SUFFIXES = frozenset(("jr", "sr", "ii", "iii", "iv", "phd", "md", "esq"))
PARTICLES = frozenset(
    ("van", "von", "de", "der", "den", "da", "di", "del", "la", "le", "du", "bin", "ibn", "al", "el", "ter", "ten", "dos", "y")
)
# Names that are words as well: in lower case they are the word.
WORDS = frozenset(
    "will may mark rose grace hope faith joy young king brown green white black gray long short price bill rich frank jack drew chase "
    "grant page art dean earl duke prince bishop pope knight cook baker miller carpenter mason porter hunter fisher gardener butler "
    "carter turner walker potter taylor smith shepherd ward wood woods field fields hill hills lake rivers brook stone rock park parks "
    "church bell day summer spring winter april june august dawn ivy lily violet daisy iris ruby pearl amber jade crystal sky star love "
    "best good wise sharp strong small little major minor power powers case cash bond banks marsh sage reed rush lane street house "
    "holmes home early light bright frost snow rain storm wolf fox bird drake finch swan martin lamb pike bass sunny penny bob pat sue "
    "don gene ray rob dale glen heath cliff guy max dick victor christian angel nova sandy misty stormy harmony melody destiny haven "
    "trinity skip ace buck chip chuck dash colt cross savage noble moody golden silver gold blue olive sterling weaver singer driver "
    "archer parker spencer marshall chandler cooper tanner tyler sawyer person man mann josh jean john mike carol tony pierce wade "
    "hardy hall french welsh english info mail contact support admin office sales team service help hello test user name first last".split()
)
# Those of them that begin sentences: there they are taken for the word even with a capital.
STARTERS = frozenset(
    "will may mark hope bill long short rich frank drew grant page art price young best love good early day april june august summer "
    "spring winter rush cook major minor small little light power case cash cross skip dash chip sharp strong home house street lane "
    "park church green white black brown blue gold silver person man french english welsh info mail contact support admin office sales "
    "team service help hello test user name first last".split()
)
_SCRIPT = {name: regex.compile(rf"\p{{Script={name}}}") for name in SCRIPTS}


@lru_cache(maxsize=1)
def _known() -> tuple[tuple[str, frozenset[str], frozenset[str], frozenset[str]], ...]:
    """(locale, female first names, male first names, last names), all in plain form."""
    found = []
    for locale in LOCALES:
        lists = importlib.import_module(f"faker.providers.person.{locale}").Provider

        def names(*attributes: str, lists: type = lists) -> frozenset[str]:
            return frozenset(plain(name) for each in attributes for name in getattr(lists, each, ()))

        female, male = names("first_names_female"), names("first_names_male")
        found.append((locale, female, male, names("last_names", "last_names_female", "last_names_male", "unisex_last_names")))
    return tuple(found)


@lru_cache(maxsize=1)
def first_names() -> frozenset[str]:
    """First names of `LOCALES`, plain."""
    return frozenset().union(*(female | male for _, female, male, _ in _known()))


@lru_cache(maxsize=1)
def last_names() -> frozenset[str]:
    """Last names of `LOCALES`, plain."""
    return frozenset().union(*(last for _, _, _, last in _known()))


@lru_cache(maxsize=1 << 14)
def locale_of(first: str, last: str) -> str:
    """Faker's locale for a name in plain form: by its script, else the one whose lists know most of it, a last name counting more.

    >>> locale_of("anna", "müller"), locale_of("анна", "каренина"), locale_of("zork", "")
    ('de_DE', 'ru_RU', 'en_GB')
    """
    for name, pattern in _SCRIPT.items():
        if pattern.search(first + last):
            return SCRIPTS[name]
    first, last = plain(first), plain(last)
    if regex.search(r"(?:ski|ska|wicz|czyk|czuk)$", last):  # Faker's Polish list holds few of them
        return "pl_PL"
    scores = [(2 * (last in lasts) + (first in female or first in male), locale) for locale, female, male, lasts in _known()]
    best = max(score for score, _ in scores)
    return next(locale for score, locale in scores if score == best)


@lru_cache(maxsize=1 << 14)
def gender_of(first: str) -> str:
    """`female`, `male`, or "" where the lists do not know or do not agree. `first` in plain form."""
    votes = sum((first in female) - (first in male) for _, female, male, _ in _known())
    return "female" if votes > 0 else "male" if votes < 0 else ""
