"""Backchannels: what people say to show that they listen, while the other goes on speaking ("mm-hm", "yeah", "okay").

The term is Yngve's (1970); who says one does not want the floor. A refusal, a request to stop and a question are none,
in no language. Words of a language that is not known here always take the floor.

What is a sound in one language may be a word in another ("um" is Portuguese for one, "er" German for he), so only those
that are none in any of these count everywhere. A lone "m" is a letter.
"""

from __future__ import annotations

import re
from functools import cache

MOST = 4
"""More of them in a row are a sentence."""

SOUNDS = "mm+ h+m+ m+h+m+ u+h+ huh e+h+ a+h+ o+h+ aha wow"
WORDS = {
    "en": "yeah yea yep yup yes ok okay right sure true exactly indeed really cool nice great good fine alright"
    " all_right i_see got_it of_course uh_huh go_on makes_sense that's_right u+m+ e+r+m?",
    "de": "ja jap jep genau ok okay stimmt gut klar richtig verstehe sicher ach ach_so alles_klar na_klar in_ordnung",
    "es": "sí si vale ok okay claro ya bueno bien entiendo ajá exacto cierto de_acuerdo por_supuesto",
    "fr": "oui ouais ok okay ah_bon d'accord voilà exact bien bon je_vois bien_sûr c'est_ça hum",
    "it": "sì si ok okay certo già esatto capisco bene giusto va_bene d'accordo",
    "ja": "うん うんうん はい ええ へえ そう そうですね なるほど ああ",
    "nl": "ja ok okay oké juist precies klopt goed inderdaad prima natuurlijk",
    "pl": "tak no_tak ok okay jasne dobrze rozumiem racja właśnie",
    "pt": "sim ok okay tá certo claro entendi pois isso bem exato",
    "zh": "嗯 嗯嗯 哦 噢 好 好的 对 是 是的",
}
BETWEEN = r"[\s,.;!。、，！…-]*"

REFUSALS = "m+_m+ h+m+_m+ u+h+_u+h+ huh_u+h+ e+h+_e+h+ a+h+_a+h+ u+h+_o+h+"
"""An "h" in the middle says yes ("uh-huh", "mm-hm"), a stop of the breath there says no ("uh-uh", "mm-mm")."""
_EITHER = "|".join(REFUSALS.replace("_", r"[\s-]+").split())
_REFUSAL = re.compile(rf"(?<!\w)(?:{_EITHER})(?!\w|[\s-]+h)")


def is_backchannel(text: str, language: str | None) -> bool:
    """Tell whether this is all that the text is. ``language`` is an ISO 639-1 code, or None for any."""
    known = "" if language is None else language.lower().partition("-")[0]
    said = text.strip().lower().replace("’", "'")
    return _pattern(known).fullmatch(said) is not None and not _REFUSAL.search(said)


@cache
def _pattern(language: str) -> re.Pattern[str]:
    words = " ".join(WORDS.values()) if not language else WORDS.get(language, "")
    unspaced = language in ("ja", "zh")
    each = "|".join([*SOUNDS.split(), *("" if unspaced else words).replace("_", BETWEEN).split()])
    end = "(?![a-z])" if unspaced else r"(?!\w)"  # without it a row of "m" could be read in very many ways
    each = f"(?:{each}){end}"
    if unspaced:
        each = "|".join([each, *words.split()])
    return re.compile(rf"{BETWEEN}(?:(?:{each}){BETWEEN}){{1,{MOST}}}")
