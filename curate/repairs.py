"""The repairs of the clean stage: small functions from text to text, each with a cheap test that says which texts it has to see.

Every repair leaves code (fences, backticks), operators, digits and indentation as they are. The stage repeats them until nothing changes.
"""

import html
import html.entities
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import ftfy
import ftfy.badness
import polars as pl

RepairName = Literal["line_ends", "html", "encoding", "control", "invisible", "nfc", "trailing_space"]


@dataclass(frozen=True)
class Repair:
    """One repair. Only texts for which `needed` holds (an expression of polars over TEXT) reach `mend`."""

    name: RepairName
    needed: pl.Expr
    mend: Callable[[str], str]
    odd: bool = False  # `needed` holds only for texts with a character of ODD, which is cheaper to look for


TEXT = pl.col("content")
ODD = TEXT.str.contains(r"[^\t\n -~]")


def where(content: pl.Series, among: pl.Series, holds: pl.Expr) -> pl.Series:
    """The positions `among` at which the expression holds; a null is no match."""
    return among.filter(content.gather(among).to_frame("content").select(holds.fill_null(False)).to_series())


def apply(content: pl.Series, repair: Repair, among: pl.Series) -> tuple[pl.Series, pl.Series]:
    """`content` with `repair` done at those positions `among` where it is needed, and the positions where that changed a text."""
    at = where(content, among, repair.needed)
    before = content.gather(at).to_list()
    mended = [repair.mend(text) for text in before]
    changed = [place for place, (old, new) in enumerate(zip(before, mended, strict=True)) if old != new]
    at = at.gather(changed)
    return (content.clone().scatter(at, [mended[place] for place in changed]) if changed else content), at


# --- code is left alone

_CODE = re.compile(r"(^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)|```.*?```|``.+?``|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def outside_code(text: str, mend: Callable[[str], str]) -> str:
    """`mend` on what lies between code fences and backticks; an unclosed fence reaches to the end."""
    if "`" not in text and "~~~" not in text:
        return mend(text)
    pieces = _CODE.split(text)  # prose and code take turns
    return "".join(piece if at % 2 else mend(piece) for at, piece in enumerate(pieces))


# --- encoding

_FTFY = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    remove_control_chars=False,
    normalization=None,
)


def _mend_encoding(text: str) -> str:
    """UTF-8 that was once read as Latin-1 or the like. ftfy's own test of badness decides, line by line."""
    return "\n".join(ftfy.fix_encoding(line, _FTFY) if is_bad(line) else line for line in text.split("\n"))


# Runs of characters beyond ASCII, near ones together. What ftfy's test looks for holds such a character and is at most 6 long.
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f](?:[\x00-\x7f]{0,12}[^\x00-\x7f])*")
_REACH = 6


def is_bad(line: str) -> bool:
    """ftfy.badness.is_bad, which looks at every character, asked only around those beyond ASCII."""
    return not line.isascii() and any(
        ftfy.badness.BADNESS_RE.search(line, max(run.start() - _REACH, 0), run.end() + _REACH) for run in _BEYOND_ASCII.finditer(line)
    )


# --- control characters

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours and cursor moves of a terminal
_BREAKS = re.compile(r"(?<!\s)[\x0b\x0c](?!\s)")  # vertical tab and form feed break lines: between words, a line break stays
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\ufdd0-\ufdef]")


def _mend_control(text: str) -> str:
    return _CONTROL.sub("", _BREAKS.sub("\n", _ANSI.sub("", text)))


def _mend_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- invisible characters

# Scripts in which ZWNJ and ZWJ choose the form of a letter: Arabic to Mandaic, the Indic scripts, Tibetan to Myanmar, Khmer, Mongolian.
_JOINING = r"\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17ff\u1800-\u18af\ua840-\ua87f\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = r"\u00a9\u00ae\u203c-\u3299\ufe0f\u20e3\U0001f000-\U0001faff"
_INVISIBLE = re.compile(
    # zero-width space, word joiner, byte order mark, Mongolian vowel separator, soft hyphen, bidi marks and isolates, deprecated formats
    r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u206f\ufeff\ufff9-\ufffb]"
    rf"|(?<![{_JOINING}])\u200c"
    rf"|\u200d(?<![{_JOINING}]\u200d)(?!(?<=[{_EMOJI}]\u200d)[{_EMOJI}])"
    # tag characters spell hidden text, except in the flags of England, Scotland and Wales
    r"|(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0000-\U000e007f]+"
)


def _mend_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text)


# --- HTML remains

_NAMES = "blockquote|center|strong|small|font|span|big|div|h[1-6]|em|ul|ol|li|p|b|i|u|s|a|br|hr|wbr|img"
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{_NAMES})(?P<rest>(?:\s+[\w:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))*)\s*/?>", re.I)
_VOID = ("br", "hr", "wbr", "img")
_BREAK_AT = {"br": "\n", "hr": "\n", "div": "\n", "center": "\n", "p": "\n\n", "blockquote": "\n\n"} | {
    f"h{n}": "\n\n" for n in range(1, 7)
}
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d{2,6}|#[xX][0-9a-fA-F]{2,5}|[A-Za-z][A-Za-z0-9]{1,30});")
_TAG_LIKE = re.compile(r"</?[A-Za-z!]")
_BLANK_LINES = re.compile(r"[ \t]*\n[ \t]*\n(?:[ \t]*\n)+")

# A row that speaks of markup, or holds a page or a program, keeps every tag and entity.
ABOUT_MARKUP = (
    r"(?i)\b(x?html5?|xml|svg|css3?|jsx|tsx|php|javascript|typescript|markup|angle brackets?"
    r"|(opening|closing|self-closing|void|anchor|br|hr|div|span|img|script|meta|heading|paragraph|list) (tag|element)s?)\b"
    r"|<!doctype|</?(html|head|body|script|style|table|form|input|button|pre|code|select|textarea|iframe|svg|template)\b"
    r"|\bdocument\.\w+|\binnerHTML\b|className="
)
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:#include|import |from \w+ import|def \w+\(|class \w+|function\b|public |private |return\b|//)|=>|&&|\|\||=="
)


def _mend_html(text: str) -> str:
    """Tags of scraped pages become line breaks or nothing, entities become their characters. Code stays."""
    if _looks_like_code(text):
        return text
    mended = outside_code(text, _mend_markup)
    return text if mended == text else mended.strip("\n")


def _looks_like_code(text: str) -> bool:
    """Three lines or more, and a third of all, that end or begin as a program's do."""
    lines = [line for line in _ENTITY.sub(" ", text).split("\n") if line.strip()]
    code = sum(1 for line in lines if _CODE_LINE.search(line))
    return code >= 3 and 3 * code >= len(lines)


def _mend_markup(prose: str) -> str:
    """One round: tags out, entities decoded. Entities that would spell a tag (`&lt;br&gt;`) speak of markup: all stays."""
    closed = {match["name"].lower() for match in _TAG.finditer(prose) if match["close"]}
    stripped = _TAG.sub(lambda match: _tag_as_text(match, closed), _COMMENT.sub("", prose))
    decoded = _ENTITY.sub(lambda match: _entity_as_text(match[0]), stripped)
    if decoded == prose or len(_TAG_LIKE.findall(decoded)) > len(_TAG_LIKE.findall(stripped)):
        return prose
    return _BLANK_LINES.sub("\n\n", decoded)


def _tag_as_text(match: re.Match[str], closed: set[str]) -> str:
    name, text, start = match["name"].lower(), match.string, match.start()
    surely_a_tag = name in _VOID or match["close"] or match["rest"] or name in closed
    if not surely_a_tag:
        before = text[start - 1] if start else " "
        if (len(name) == 1 and name != "p") or before.isalnum() or before == "_":
            return match[0]  # `List<span>` or `a <b> c`
    if name == "li":
        return "" if match["close"] else "\n- "
    if name == "br" and text[text.rfind("\n", 0, start) + 1 : start].lstrip().startswith("|"):
        return " "  # a line break would tear the row of a Markdown table
    return _BREAK_AT.get(name, "")


def _entity_as_text(entity: str) -> str:
    """The character of an entity; an unknown name stays as it is (`html.unescape` would take `&para` out of `&parameter;`)."""
    if entity[1] != "#" and entity[1:] not in html.entities.html5:
        return entity
    char = html.unescape(entity)
    return {"\xa0": " ", "\r": "\n"}.get(char, char)


# --- white space at line ends


def _mend_trailing_space(text: str) -> str:
    return (outside_code(text, _stripped_lines) if " \n" in text or "\t\n" in text else text).rstrip(" \t\n")


def _stripped_lines(prose: str) -> str:
    *lines, last = prose.split("\n")
    return "\n".join([*(line.rstrip(" \t") for line in lines), last])


REPAIRS = (
    Repair("line_ends", TEXT.str.contains("\r", literal=True), _mend_line_ends),
    Repair(
        "html",
        TEXT.str.contains(r"(?i)</?[a-z][a-z1-6]*(\s[^<>]*)?/?>|<!--|&(#\d{2,6}|#x[0-9a-f]{2,5}|[a-z][a-z0-9]{1,30});"),
        _mend_html,
    ),
    # what UTF-8 looks like in a wrong code page: two characters beyond ASCII in a row, or a lone lead byte before a space
    Repair("encoding", TEXT.str.contains(r"[^\x00-\x7f]{2}|[ÂÃâ] |[\x{80}-\x{9f}]"), _mend_encoding, odd=True),
    Repair(
        "control", TEXT.str.contains(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{fffe}\x{ffff}\x{fdd0}-\x{fdef}]"), _mend_control, odd=True
    ),
    Repair(
        "invisible",
        TEXT.str.contains(
            r"[\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}\x{2066}-\x{206f}\x{feff}\x{fff9}-\x{fffb}\x{e0000}-\x{e007f}]"
        ),
        _mend_invisible,
        odd=True,
    ),
    Repair("nfc", TEXT.str.contains(r"[^\x00-\x{2ff}]"), lambda text: unicodedata.normalize("NFC", text), odd=True),
    Repair(
        "trailing_space",
        pl.any_horizontal(
            *(TEXT.str.contains(each, literal=True) for each in (" \n", "\t\n")), *(TEXT.str.ends_with(each) for each in " \t\n")
        ),
        _mend_trailing_space,
    ),
)
