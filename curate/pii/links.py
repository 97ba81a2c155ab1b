"""What leads to a person on the web or in a file system: credential and profile URLs, user names in paths, e-mail spelt out, domains."""

from functools import lru_cache
from typing import Any

import regex
import tldextract

from curate.pii.presidio import Pattern, PatternRecognizer
from curate.pii.screen import Finder

LOOSE = regex.IGNORECASE | regex.MULTILINE
# Special-use top-level names (RFC 2606, 6761, 6762, 8375) and those of office networks: no public suffixes, but in addresses all the same.
LOCAL_NAMES = frozenset({"example", "test", "invalid", "localhost", "local", "internal", "intranet", "lan", "corp", "home", "arpa"})


@lru_cache
def suffixes() -> Any:
    """The public suffixes inside the package: no network, no cache files."""
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def is_domain(name: str) -> bool:
    """Whether a name ends in a public suffix or a special-use name.

    >>> is_domain("mail.example.co.uk"), is_domain("notes.txt"), is_domain("printer.lan")
    (True, False, True)
    """
    return name.rpartition(".")[2].casefold() in LOCAL_NAMES or bool(suffixes()(name).suffix)


class CredentialUrl(PatternRecognizer):  # type: ignore[misc]
    """A URL that carries a password or a token. Other URLs are no personal data, unless `ProfileUrl` knows them."""

    NAMES = (
        r"(?:access_?token|auth_?token|id_?token|token|api_?key|key|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token"
        r"|passw(?:or)?d|pwd|secret|client_?secret|session_?id|sessionid|sid|jwt|auth)"
    )

    def __init__(self) -> None:
        end = r"[^\s\"'`<>)\]]{0,2000}[^\s\"'`<>)\].,;:!?]"
        shapes = (
            rf"\b(?:https?|wss?|git|svn)(?:\+\w{{1,20}})?://[^\s/@:\"'<>]{{0,100}}:[^\s/@\"'<>]{{1,200}}@{end}",
            rf"\b(?:https?|wss?)://[^\s\"'`<>?#]{{3,500}}[?#](?:[^\s\"'`<>]{{0,1000}}&)?{self.NAMES}=[^\s\"'`<>&]{{7}}{end}",
        )
        super().__init__("URL", patterns=[Pattern(f"Credential URL {at}", shape, 0.9) for at, shape in enumerate(shapes, 1)])


_SITES = (
    r"linkedin\.com/in/|(?:facebook|fb|instagram|tiktok|twitter|x|threads)\.(?:com|net)/@?(?!(?:p|reel|explore|share|sharer|sharer\.php|intent|hashtag|home|login"
    r"|search|groups|events|watch|pages|dialog|tr|plugins|i|about|help|settings|docs|en|us|status)\b)|(?:reddit\.com/u(?:ser)?/)|(?:t|wa)\.me/|medium\.com/@|youtube\.com/@"
    r"|(?:xing\.com/profile/)|(?:mastodon\.[a-z]{2,10}/@)|(?:vk\.com/id)|(?:orcid\.org/)|(?:keybase\.io/)|(?:about\.me/)"
)


class ProfileUrl(PatternRecognizer):  # type: ignore[misc]
    """The page of one person: a profile on a social network, `/users/NAME`, `/~NAME`."""

    def __init__(self) -> None:
        end = r"[\w.%+\-]{2,60}(?:/[^\s\"'`<>)\]]{0,200})?(?<![.,;:!?])"
        shapes = (
            rf"(?<![\w.])(?:https?://)?(?:[a-z]{{2,3}}\.)?(?:www\.|m\.|mobile\.)?(?:{_SITES}){end}",
            rf"\bhttps?://[\w.\-]{{4,100}}(?::\d{{2,5}})?/(?:[\w\-]{{1,40}}/){{0,3}}(?:(?:users?|people|profiles?|members?)/|~/?)(?!(?:me|new|login|current|settings|self|guide|manual|docs?|all|search|sign[_\-]?\w{{2,3}})\b)(?:\w+[.\-_])?\w{end}",
        )
        super().__init__(
            "URL",
            name="ProfileUrl",
            patterns=[Pattern(f"Profile {at}", shape, 0.6) for at, shape in enumerate(shapes, 1)],
            global_regex_flags=LOOSE,
        )


class PathUser(PatternRecognizer):  # type: ignore[misc]
    """The user in a path of a home folder; names of accounts that every machine has are left."""

    NOBODY = frozenset(
        [
            "user",
            "users",
            "username",
            "root",
            "ubuntu",
            "admin",
            "administrator",
            "runner",
            "app",
            "ec2-user",
            "vagrant",
            "pi",
            "node",
            "centos",
            "debian",
            "opc",
            "git",
            "jenkins",
            "travis",
            "circleci",
            "default",
            "public",
            "shared",
            "guest",
            "www-data",
            "postgres",
            "docker",
            "linuxbrew",
            "me",
            "you",
            "your_name",
            "yourname",
            "your-name",
            "name",
            "someone",
            "jovyan",
            "build",
            "builder",
            "test",
            "dev",
            "all",
            "home",
            "work",
            "data",
            "project",
            "projects",
            "src",
            "code",
            "coder",
            "ci",
            "deploy",
            "service",
            "svc",
        ]
    )

    def __init__(self) -> None:
        shape = r"(?<![\w.])(?:/home/|/Users/|[A-Za-z]:\\{1,2}(?:Users|Documents and Settings)\\{1,2})\K[A-Za-z][\w.\-]{1,31}(?![\w*{(<$])(?<![.\-])"
        super().__init__("USERNAME", name="PathUser", patterns=[Pattern("Home folder", shape, 0.6)], global_regex_flags=regex.MULTILINE)

    def invalidate_result(self, pattern_text: str) -> bool:
        """An account that is nobody's."""
        return pattern_text.casefold() in self.NOBODY or (
            "." in pattern_text.strip(".")[-5:] and pattern_text.rpartition(".")[2] in ("py", "js", "sh", "txt", "html", "css")
        )


class SpeltEmail(PatternRecognizer):  # type: ignore[misc]
    """`name at example dot com`, `name [at] example [dot] com`, `name(at)example.com`."""

    AT = r"\s?(?:\(\s?(?:at|@)\s?\)|\[\s?(?:at|@)\s?\]|\{\s?(?:at|@)\s?\}|<at>)\s?"
    DOT = r"(?:\s?(?:\(\s?(?:dot|\.)\s?\)|\[\s?(?:dot|\.)\s?\]|\{\s?(?:dot|\.)\s?\}|<dot>)\s?|\s(?:dot|DOT)\s|\.)"
    NAME = r"(?<![\w.+\-@])[\w+\-]{1,64}(?:(?:\.|\s(?:dot|DOT)\s)[\w+\-]{1,64}){0,3}"

    def __init__(self) -> None:
        host = rf"[\w\-]{{1,63}}(?:{self.DOT}[\w\-]{{1,63}}){{0,3}}{self.DOT}[a-z]{{2,18}}(?![\w@])"
        plain = r"[\w\-]{1,63}(?:\s(?:dot|DOT)\s[\w\-]{1,63}){0,3}\s(?:dot|DOT)\s[a-z]{2,18}(?![\w@])"
        shapes = (rf"{self.NAME}{self.AT}{host}", rf"{self.NAME}\s(?:at|AT)\s{plain}", rf"{self.NAME}\s?@\s?{plain}")
        patterns = [Pattern(f"Spelt address {at}", shape, 0.6) for at, shape in enumerate(shapes, 1)]
        super().__init__("EMAIL_ADDRESS", name="SpeltEmail", patterns=patterns, global_regex_flags=LOOSE)

    def invalidate_result(self, pattern_text: str) -> bool:
        """No address once it is written plainly."""
        plain = regex.sub(r"\s*[\[({<]?\b(?:dot)\b[\])}>]?\s*|\s*[\[({]\s?\.\s?[\])}]\s*", ".", pattern_text, flags=regex.IGNORECASE)
        host = regex.split(r"\s*[\[({<]\s?(?:at|@)\s?[\])}>]\s*|\sat\s|\s?@\s?", plain, flags=regex.IGNORECASE)[-1]
        return not is_domain(host)


class Domain(PatternRecognizer):  # type: ignore[misc]
    """Any web address, or any domain with a public suffix."""

    def __init__(self) -> None:
        shapes = (
            r"\b(?:https?|ftp)://[^\s\"'`<>)\]]{3,2000}(?<![.,;:!?])",
            r"(?<![\w@.\-/])(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.){1,6}[a-z]{2,18}(?![\w@\-(])(?:/[^\s\"'`<>)\]]{0,500}(?<![.,;:!?]))?",
        )
        super().__init__(
            "DOMAIN_NAME",
            name="Domain",
            patterns=[Pattern(f"Domain {at}", shape, 0.5) for at, shape in enumerate(shapes, 1)],
            global_regex_flags=LOOSE,
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """A dotted name that is no domain."""
        return "://" not in pattern_text and not is_domain(pattern_text.partition("/")[0])


def finders() -> tuple[Finder, ...]:
    """New recognizers with their screens."""
    return (
        Finder(CredentialUrl(), ("://",)),
        Finder(ProfileUrl(), (r"(?i:\.com/|\.net/|\.me/|\.io/|\.org/|mastodon\.|/~|/users?/|/people/|/profiles?/|/members?/)",)),
        Finder(PathUser(), (r"/home/|/Users/|\\Users\\|\\Documents and Settings\\",)),
        Finder(SpeltEmail(), (r"(?i:[\[({<]\s?(?:at|@)\s?[\])}>]|\sdot\s)",)),
        Finder(Domain(), (r"(?i:[a-z0-9]\.[a-z]{2}|://)",)),
    )
