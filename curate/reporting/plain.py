"""Makes characters that nobody can see, or that turn the text around them about, visible: a reviewer must be able to see what is in a row.

What is left cannot move anything on the page: marks that turn the direction of text, zero-width characters and control characters are
written as their code points.
"""

import re

from markupsafe import Markup

HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab and line ends
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction
    "\u00ad\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # no width
    "\U000e0000-\U000e007f\ud800-\udfff]"  # tags, halves of pairs
)
MARKS = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"  # combining
STACK = re.compile(f"({MARKS}{{4}}){MARKS}+")


def visible(text: str) -> str:
    """`text` with hidden characters as ⟨U+202E⟩, and never more than four marks on one letter.

    >>> visible("pay \\u202e100")
    'pay ⟨U+202E⟩100'
    >>> len(visible("a" + "\\u0301" * 500))
    5
    """
    return STACK.sub(r"\1", HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text))


def breakable(name: str) -> Markup:
    """A name that may be broken after its separators, and so need not be broken within a word.

    >>> breakable("a_b/<i>.txt")
    Markup('a_<wbr>b/<wbr>&lt;i&gt;.<wbr>txt')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[_/.:-])(?=[^_/.:-])", visible(name)))


def finalize(value: object) -> object:
    """What a template prints: text of the data through `visible`, everything else (numbers, our own markup) as it is."""
    return visible(value) if type(value) is str else value
