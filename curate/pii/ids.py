"""National ids of other countries that Presidio validates, each with the words that must stand nearby: their shapes are common.

Presidio ties most of them to a language. Here they are looked for in every text: a Polish number in an English sentence is as personal.
"""

from typing import Any

from curate.pii.context import context_screen
from curate.pii.presidio import predefined_recognizers as stock
from curate.pii.screen import Finder

_ID = ("national id", "identity number", "id number", "personal id")


def _found(recognizer: Any, shape: str, words: tuple[str, ...], needed: bool = True) -> Finder:
    recognizer.supported_language = "en"  # the one language that our engine is asked for
    recognizer.context = list(words)
    return Finder(recognizer, ("[0-9]", shape, context_screen(words)) if needed else (shape,))


def _pan() -> Any:
    """Without its third pattern, which takes anything of ten characters and time that grows with the square of the text."""
    return stock.InPanRecognizer(patterns=stock.InPanRecognizer.PATTERNS[:2])


def finders() -> tuple[Finder, ...]:
    """New recognizers with their screens."""
    fiscal = "(?i:[a-z]{6}[0-9lmnp-v]{2}[a-ehlmpr-t][0-9lmnp-v]{2}[a-mz][0-9lmnp-v]{3}[a-z])"  # letters may stand for its digits
    eleven, nine = "[0-9]{11}", r"[0-9]{3}[\s-]?[0-9]{3}[\s-]?[0-9]{3}"
    return (
        _found(stock.AuTfnRecognizer(), nine, ("tax file number", "tfn")),
        _found(stock.AuAbnRecognizer(), r"[0-9]{2}\s?[0-9]{3}\s?[0-9]{3}\s?[0-9]{3}", ("australian business number", "abn")),
        _found(stock.AuMedicareRecognizer(), r"[0-9]{4}\s?[0-9]{5}\s?[0-9]", ("medicare",)),
        _found(stock.CaSinRecognizer(), nine, ("social insurance", "sin", "numéro d'assurance sociale", "nas")),
        _found(
            stock.DeTaxIdRecognizer(),
            eleven,
            ("steueridentifikationsnummer", "steuer-id", "steuerid", "steuer id", "identifikationsnummer", "idnr", "tax id", "tax number"),
        ),
        _found(
            stock.DeSocialSecurityRecognizer(),
            "[0-9]{8}[A-Za-z][0-9]{3}",
            ("rentenversicherung", "sozialversicherung", "versicherungsnummer", "rvnr", "svnr", "sv-nummer", "social security"),
        ),
        _found(stock.EsNifRecognizer(), "[0-9]{7}-?[A-Za-z]", ("dni", "nif", "documento nacional", "identificación", *_ID)),
        _found(stock.EsNieRecognizer(), "[0-9]{7}-?[A-Za-z]", ("nie", "extranjero", *_ID)),
        _found(
            stock.FiPersonalIdentityCodeRecognizer(),
            "[0-9]{6}[-+A-Za-z][0-9]{3}[0-9A-Za-z]",
            ("hetu", "henkilötunnus", "personbeteckning", "personal identity code", *_ID),
        ),
        _found(stock.InAadhaarRecognizer(), "[0-9]{4}[- :]?[0-9]{4}[- :]?[0-9]{4}", ("aadhaar", "aadhar", "uidai")),
        _found(_pan(), "[0-9]{4}[A-Za-z]", ("permanent account number", "pan card", "pan number", "pan no", "pan")),
        _found(stock.ItFiscalCodeRecognizer(), fiscal, ("codice fiscale", "fiscal code"), needed=False),
        _found(stock.KrRrnRecognizer(), "[0-9]{6}-?[0-9]{7}", ("rrn", "resident registration", "주민등록번호", "주민번호", *_ID)),
        _found(stock.NgNinRecognizer(), eleven, ("nin", "nimc", "national identification number", "national identity")),
        _found(stock.PlPeselRecognizer(), eleven, ("pesel",)),
        _found(
            stock.SePersonnummerRecognizer(), "[0-9]{6}[-+]?[0-9]{4}", ("personnummer", "personal identity number", "samordningsnummer")
        ),
        _found(stock.SgFinRecognizer(), "[0-9]{7}[A-Za-z]", ("nric", "fin", "singapore id", *_ID)),
        _found(stock.ThTninRecognizer(), "[0-9]{13}", ("thai", "tnin", "เลขประจำตัวประชาชน", "เลขบัตรประชาชน")),
        _found(stock.TrNationalIdRecognizer(), eleven, ("tc kimlik", "kimlik", "tckn", "tc no", "turkish id", "national id")),
        _found(stock.UsMbiRecognizer(), "[0-9][A-Za-z][0-9A-Za-z][0-9]", ("medicare", "mbi", "beneficiary")),
        _found(
            stock.ZaIdNumberRecognizer(),
            "[0-9]{13}",
            ("south african id", "rsa id", "smart id", "identity number", "id number", "national id"),
        ),
    )
