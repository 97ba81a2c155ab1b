"""Presidio, imported without torch and transformers, which it would load if they are installed (20 s, 1 GB) and which nothing here uses.

Every module takes Presidio from here, so that the order of imports cannot matter.
"""

import sys
from typing import Any

_HEAVY = ("torch", "transformers")
_absent = [name for name in _HEAVY if name not in sys.modules]
for _name in _absent:
    sys.modules[_name] = None  # type: ignore[assignment]  # makes `import torch` raise ImportError, which Presidio and spaCy expect
try:
    from presidio_analyzer import (
        AnalyzerEngine,
        EntityRecognizer,
        Pattern,
        PatternRecognizer,
        RecognizerRegistry,
        RecognizerResult,
        predefined_recognizers,
    )
    from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
    from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
finally:
    for _name in _absent:
        del sys.modules[_name]


def no_tokens() -> Any:
    """What recognizers are given instead of tokens: none of ours reads them."""
    nothing: Any = []
    return NlpArtifacts(nothing, nothing, nothing, nothing, None, "en")


__all__ = [
    "AnalyzerEngine",
    "ContextAwareEnhancer",
    "EntityRecognizer",
    "NerModelConfiguration",
    "NlpArtifacts",
    "Pattern",
    "PatternRecognizer",
    "RecognizerRegistry",
    "RecognizerResult",
    "SpacyNlpEngine",
    "no_tokens",
    "predefined_recognizers",
]
