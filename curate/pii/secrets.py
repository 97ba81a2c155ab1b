"""Recognizers for secrets: keys, tokens and passwords that open something. Each has a screen: if it says no, nothing can match.

Where a secret is announced by a name (`password = …`), `\\K` keeps the name out of the finding.
"""

import math
from collections import Counter
from collections.abc import Callable

import regex

from curate.pii.presidio import Pattern, PatternRecognizer
from curate.pii.screen import Finder, any_case, anywhere
from curate.pii.tokens import TOKENS

LOOSE = regex.IGNORECASE | regex.MULTILINE
EXACT = regex.MULTILINE  # tokens have a fixed case; Presidio takes 0 for "not given"


class SecretRecognizer(PatternRecognizer):  # type: ignore[misc]
    """A pattern recognizer with a check of the matched text: False removes the finding."""

    def __init__(self, kind: str, patterns: tuple[str, ...], flags: int, check: Callable[[str], bool] | None, name: str) -> None:
        made = [Pattern(f"{kind} {at}", pattern, 0.9) for at, pattern in enumerate(patterns, 1)]
        super().__init__(supported_entity=f"SECRET_{kind}", name=name, patterns=made, global_regex_flags=flags)
        self.check = check

    def invalidate_result(self, pattern_text: str) -> bool:
        """True where the match is a placeholder, a word or code instead of a secret."""
        return self.check is not None and not self.check(pattern_text)


_SLOT = regex.compile(
    r"[*•.xX_\-#?]+|<.*|\$[\{(].*|\$[A-Z_]+|%s|%\w+%|%\(.*|\{.*\}|\[.*\]|(?:your|my|the|some|example|insert|enter)[_\-\s].*",
    regex.IGNORECASE,
)
_NOT_VALUES = frozenset({"password", "passwd", "none", "null", "true", "false", "string", "text", "required", "optional", "undefined"})
_NAME = regex.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+")


def is_filled(value: str) -> bool:
    """A value that somebody could use: no `****`, no `<password>`, no `${PASSWORD}`.

    >>> is_filled("hunter2"), is_filled("<password>"), is_filled("********"), is_filled("your_password")
    (True, False, False, False)
    """
    return _SLOT.fullmatch(value) is None and value.casefold() not in _NOT_VALUES


def is_password(value: str) -> bool:
    """An unquoted value that reads as a password, neither as a word nor as code.

    >>> is_password("hunter2"), is_password("BlueKettle"), is_password("required"), is_password("getpass()"), is_password("self.pw2")
    (True, True, False, False, False)
    """
    if not is_filled(value) or regex.search(r"[()\[\]{}]", value) or _NAME.fullmatch(value):
        return False
    if not regex.search(r"[^\W\d_]", value):  # digits alone: a PIN of six or more; `2*30` is sums
        return len(value) >= 6 and value.isdigit()
    if value.replace("_", "").isalpha():
        return bool(regex.search(r"[a-z][A-Z]", value)) and "pass" not in value.casefold()
    return bool(regex.search(r"[\d!@#$%^&*+?~]", value))


def is_random(value: str) -> bool:
    """A value with letters, digits and at least 3 bits a character (Shannon): a key, not a name.

    >>> is_random("9f86d081884c7d65"), is_random("user_token_value"), is_random("aaaaaaaaaaaaaaa1")
    (True, False, False)
    """
    if not is_filled(value) or _NAME.fullmatch(value) or not (regex.search(r"\d", value) and regex.search(r"[A-Za-z]", value)):
        return False
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts) >= 3


def is_very_random(value: str) -> bool:
    """As `is_random`, with 3.5 bits a character, and neither a UUID nor a hash of 32, 40 or 64 hex digits.

    >>> is_very_random("kQ9vX2mZ7pL4wR8tB1nC"), is_very_random("9f86d081884c7d659a2feaa0c55ad015")
    (True, False)
    """
    if not is_random(value) or regex.fullmatch(r"[0-9a-fA-F]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        return False
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts) >= 3.5


def is_varied(value: str) -> bool:
    """More than one character over and over: a hundred letters A have the shape of a bearer token of Twitter's.

    >>> is_varied("A" * 140), is_varied("A" * 22 + "9f86d081884c7d65")
    (False, True)
    """
    return len(set(value)) > 1


def is_token(value: str) -> bool:
    """What follows `Bearer`: a digit, or twenty characters."""
    return is_filled(value) and (bool(regex.search(r"\d", value)) or len(value) >= 20)


_TO = r"""["'`\]]{0,2}\s{0,3}(?:=>|:=|={1,3}|:)\s{0,3}"""  # from a name to its value in JSON, YAML, ini, code and prose
_PASSWORD = r"(?:pass(?:word|wd|phrase|code)|(?<![a-z])pwd|(?<![a-z])psk)"
_KEY = (
    r"(?:(?:api|access|auth|secret|private|client|refresh|session|signing|encryption|bot|consumer|master|deploy|account|shared)[_\-. ]?"
    r"(?:access[_\-]?)?(?:key|token|secret)|(?<![a-z])(?:token|secret))(?:[_\-]?(?:key|value))?"
)
_BLOCK = r"(?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"
_SCHEMES = (
    r"(?:postgres(?:ql)?|mysql|mariadb|mongodb|redis|rediss|amqps?|mssql|sqlserver|oracle|clickhouse|snowflake|cockroachdb|jdbc:\w+"
    r"|s?ftps?|ssh|smtps?|imaps?|pop3s?|ldaps?|mqtts?|nats|kafka|rtsp)(?:\+\w+)?"
)


# The sign after the name lies within five characters of it, or the verb does.
PASSWORD_SCREEN = r"(?i:(?:pass(?:word|wd|phrase|code)|pwd|psk)(?:[\"'`\]]{0,2}\s{0,3}[=:]|\s{1,3}(?:is|was|to)))"
_OPENERS = (
    r"(?:credentials?|passkey|(?:otp|totp|recovery|backup|activation|licen[cs]e|webhook|hmac|signing)[_\- ]?(?:code|key|seed|secret|salt)?)"
)
KEY_SCREEN = r"(?i:(?:key|token|secret|value)[\"'`\]]{0,2}\s{0,3}[=:])"


def _secret(kind: str, screen: str, *patterns: str, flags: int = EXACT, check: Callable[[str], bool] | None = None, name: str) -> Finder:
    return Finder(SecretRecognizer(kind, patterns, flags, check, name), (screen,))


_ANY_TOKEN = "|".join(screen for _, screen, _ in TOKENS)  # one search instead of some sixty: few texts hold any


def _token(name: str, screen: str, pattern: str) -> Finder:
    return Finder(SecretRecognizer("TOKEN", (pattern,), EXACT, is_varied, f"{name}TokenRecognizer"), (_ANY_TOKEN, screen))


def finders() -> tuple[Finder, ...]:
    """New recognizers, one or more a kind. Token shapes are those that their issuers publish for secret scanning."""
    return (
        _secret(
            "PRIVATE_KEY",
            anywhere("PRIVATE KEY", "PuTTY-User-Key-File"),
            rf"-----BEGIN {_BLOCK}(?:(?s:.*?)-----END {_BLOCK}|(?:(?:\s|\\[nr])*[A-Za-z0-9+/=]{{20,}})*)",
            r"PuTTY-User-Key-File-\d:(?s:.*?)Private-MAC: ?[0-9a-fA-F]+",
            name="PrivateKeyRecognizer",
        ),
        _secret(
            "CONNECTION_STRING",
            anywhere("://"),
            rf"(?<![a-z]){_SCHEMES}://[^\s/@:\"'<>]{{0,100}}:[^\s/@\"'<>]{{1,200}}@[^\s\"'`<>)\]]{{0,300}}[^\s\"'`<>)\].,;]",
            flags=LOOSE,
            name="ConnectionStringRecognizer",
        ),
        _secret("JWT", anywhere("eyJ"), r"\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]{8,}(?:\.[\w\-]+){0,2}", name="JwtRecognizer"),
        _secret(
            "AUTHORIZATION",
            any_case("bearer", "author"),
            r"\bbearer[\s:]{1,3}[\"']?\K[a-z0-9._~+/\-]{8,}={0,2}",
            r"\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:basic|token|apikey|digest)\s{1,3}\K[a-z0-9._~+/\-]{8,}={0,2}",
            flags=LOOSE,
            check=is_token,
            name="AuthorizationRecognizer",
        ),
        _secret(
            "PASSWORD",
            PASSWORD_SCREEN,
            rf"{_PASSWORD}{_TO}([\"'`])\K[^\"'`\n]{{4,200}}(?=\1)",
            flags=LOOSE,
            check=is_filled,
            name="QuotedPasswordRecognizer",
        ),
        _secret(
            "PASSWORD",
            PASSWORD_SCREEN,
            rf"{_PASSWORD}{_TO}\K(?:[^\s\"'`<>;&]|&(?!\w+=)){{3,199}}[^\s\"'`<>;&,.)\]}}]",
            rf"{_PASSWORD}\s{{1,3}}(?:is|was|to)\s{{1,3}}(?:now\s{{1,3}})?[\"'`]?\K[^\s\"'`<>;&]{{3,199}}[^\s\"'`<>;&,.)\]}}?]",
            flags=LOOSE,
            check=is_password,
            name="PasswordRecognizer",
        ),
        _secret(
            "API_KEY",
            KEY_SCREEN,
            rf"{_KEY}{_TO}[\"'`]?\K[a-z0-9_\-./+=~]{{16,512}}",
            flags=LOOSE,
            check=is_random,
            name="ApiKeyRecognizer",
        ),
        _secret("AWS_KEY", anywhere("AKIA", "ASIA", "ABIA", "ACCA"), r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", name="AwsKeyIdRecognizer"),
        _secret(
            "AWS_KEY",
            any_case("aws"),
            r"aws[^\n]{0,30}?(?:secret|key)[^\n]{0,30}?[:=]\s{0,3}[\"']?\K[a-z0-9/+]{40}(?![a-z0-9/+=])",
            flags=LOOSE,
            check=is_random,
            name="AwsSecretRecognizer",
        ),
        _secret(
            "AZURE_KEY",
            anywhere("AccountKey", "SharedAccessKey"),
            r"(?:AccountKey|SharedAccessKey)\s?=\s?\K[A-Za-z0-9+/]{40,88}={0,2}",
            name="AzureKeyRecognizer",
        ),
        _secret(
            "GOOGLE_KEY",
            anywhere("AIza", "ya29.", "GOCSPX-"),
            r"\bAIza[\w\-]{35}(?![\w\-])",
            r"\bya29\.[\w\-]{20,}",
            r"\bGOCSPX-[\w\-]{20,}",
            name="GoogleKeyRecognizer",
        ),
        _secret(
            "GITHUB_TOKEN",
            anywhere("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
            r"\bgh[pousr]_[A-Za-z0-9]{30,255}",
            r"\bgithub_pat_\w{22,255}",
            name="GithubTokenRecognizer",
        ),
        _secret(
            "GITLAB_TOKEN",
            r"gl[a-z]{2,5}-",
            r"\bgl(?:pat|dt|rt|cbt|ptt|soat|ft|imt|agent|oas|rtr)-[\w\-.]{18,}[\w\-]",
            name="GitlabTokenRecognizer",
        ),
        _secret(
            "SLACK_TOKEN",
            anywhere("xox", "xapp-", "hooks.slack.com"),
            r"\bxox[a-z](?:\.xox[a-z])?-[A-Za-z0-9\-]{10,}",
            r"\bxapp-\d-[A-Za-z0-9\-]{10,}",
            r"https://hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}",
            name="SlackTokenRecognizer",
        ),
        _secret(
            "STRIPE_KEY",
            anywhere("k_live_", "k_test_", "whsec_"),
            r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{10,}",
            r"\bwhsec_[A-Za-z0-9+/=]{16,}",
            name="StripeKeyRecognizer",
        ),
        _secret(
            "OPENAI_KEY",
            anywhere("sk-"),
            r"\bsk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?[\w\-]{20,}",
            check=is_random,
            name="OpenAiKeyRecognizer",
        ),
        _secret("ANTHROPIC_KEY", anywhere("sk-ant-"), r"\bsk-ant-[\w\-]{20,}", name="AnthropicKeyRecognizer"),
        _secret("HUGGINGFACE_TOKEN", anywhere("hf_", "api_org_"), r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}", name="HuggingFaceTokenRecognizer"),
        _secret("NPM_TOKEN", anywhere("npm_"), r"\bnpm_[A-Za-z0-9]{30,}", name="NpmTokenRecognizer"),
        _secret("PYPI_TOKEN", anywhere("pypi-"), r"\bpypi-[\w\-]{50,}", name="PypiTokenRecognizer"),
        _secret("SENDGRID_KEY", anywhere("SG."), r"\bSG\.[\w\-]{16,}\.[\w\-]{16,}", name="SendgridKeyRecognizer"),
        _secret("TWILIO_KEY", r"(?:SK|AC)[0-9a-f]{32}", r"\b(?:SK|AC)[0-9a-f]{32}\b", name="TwilioKeyRecognizer"),
        _secret("TELEGRAM_TOKEN", anywhere(":AA"), r"(?<!\d)\d{8,10}:AA[\w\-]{33}(?![\w\-])", name="TelegramTokenRecognizer"),
        _secret(
            "RANDOM",
            rf"(?i:{_OPENERS}[\"'`\]]{{0,2}}\s{{0,3}}[=:])",
            rf"{_OPENERS}{_TO}[\"'`]?\K[a-z0-9_\-+/=~]{{20,512}}(?![a-z0-9_\-+/=~.])",
            flags=LOOSE,
            check=is_very_random,
            name="RandomStringRecognizer",
        ),
        *(_token(*each) for each in TOKENS),
        _secret("DIGITALOCEAN_TOKEN", anywhere("_v1_"), r"\bdo[opr]_v1_[0-9a-f]{40,}", name="DigitalOceanTokenRecognizer"),
    )
