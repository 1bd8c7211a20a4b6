"""Which questions are plainly not English, by their script and their commonest words: the packaged rules know no other.

It would rather miss a question than take names, numbers or a scrap of text on a sign for another language. So a word
counts for a language only if English does not have it, and what also stands in names (*de*, *la*, *van*) or in English
(*dove*, *comment*) counts only beside a word that does not.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from clasp_calib.router_labeling.rules import normalise

MUCH = 0.05
"""Our choice: this share of a table is worth a word. On English questions less than a hundredth is flagged."""
_WORD = re.compile(r"[^\W\d_]+")
_KNOWN = (
    "what which who whom whose where when why how are were been does did have could would should might the this that "
    "these those there here with from and not any many much it its she they their you your my our if about colour "
    "picture woman see yes please describe identify count"
)
_ENGLISH = frozenset(_KNOWN.split())
"""Words of no other language below: neither is nor was, in, on, a or do."""
_STRONG = {
    "de": "das ist sind ein eine einen einem einer und auf dem welche welcher welches welchem wie wer warum wann nicht "
    "für gibt haben wird kann sieht dieser dieses diese viele sich steht macht zeigt bild farbe zu sehen hier",
    "fr": "une dans avec quel quelle quels quelles qui où combien pourquoi cette ces elle elles ils sont pas et "
    "sur que couleur aux trouve fait",
    "es": "qué cuál cuáles cuántos cuántas cuánto cómo dónde quién cuantos cuantas donde quien está están esta estos "
    "este una por tiene hace imagen y que",
    "it": "che cosa quanti quante quale quali perché sono è nella nel questa questo sulla della dello degli gli una "
    "nell dell sull quanto trova",
    "pt": "qual quais quantos quantas onde quem está estão há é nesta neste isto isso são não com imagem que esta uma",
    "nl": "wat welke waar wie waarom een het zijn staat deze dit dat niet naar heeft wordt hoeveel kleur veel voor",
    "pl": "jaki jaka jakie jakiego ile gdzie kto czy dlaczego jest są się nie tym tej tego zdjęciu obrazie obrazku",
    "tr": "nedir kaç nerede neden hangi nasıl bir ve için resimde renk mı mü görünüyor kaçtır yapıyor yazıyor",
    "sv": "vad är vilken vilket vilka hur många vem varför och på ett inte finns bilden",
    "da": "hvad hva hvilken hvilket hvor hvem hvorfor ikke på billedet bildet",
    "ro": "câte câți unde cine este sunt și în imagine",
    "cs": "jaký jaká jaké kolik kde kdo proč jsou obrázku barva není",
    "fi": "mikä mitä kuinka monta missä kuka miksi kuvassa minkä värinen ovat",
    "hu": "hány milyen egy és nem képen hol",
    "id": "berapa siapa mengapa ini itu yang gambar warna adalah apakah",
    "vi": "gì là nhiêu có trong ảnh người này đâu màu của và không",
}
_WEAK = {
    "de": "der die den im in was wo mit von bei aus am an es hat",
    "fr": "le la les l de des du d un au est ce il y en on a t n s qu se plus",
    "es": "el la los las de del en un se su con para como es son hay al lo a",
    "it": "il lo la le i di da del un in c con per ci dove chi si a al",
    "pt": "o a os as de da do dos das em um no na como se ao",
    "nl": "de van in is op met te er ik hoe dan",
    "pl": "co w z na do to ten i",
    "tr": "ne bu var mi mu kim da de",
    "sv": "det en som den var av i",
    "da": "det en et er og som den mange til i",
    "ro": "ce pe din cu nu un o de la",
    "cs": "co je na se v to",
    "fi": "on ja ei",
    "hu": "mi van az a ki",
    "id": "apa di mana dan ada dalam",
    "vi": "bao ai con",
}
_LANGUAGES = [(frozenset(_STRONG[name].split()), frozenset(_WEAK[name].split())) for name in _STRONG]
_ANY = frozenset().union(*(strong for strong, _ in _LANGUAGES))
_LATIN_ENDS = 0x250
_LATIN_MORE = range(0x1E00, 0x1F00)


@dataclass(frozen=True)
class NotEnglish:
    """Questions of a table that are plainly not English."""

    questions: int
    share: float
    """Of all that were looked at, in [0, 1]."""
    example: str

    def __str__(self) -> str:
        """In a few words."""
        shown = self.example if len(self.example) <= 80 else f"{self.example[:80]}..."
        return f"{self.share:.0%} of the questions ({self.questions}) do not look English, such as {shown!r}"


def not_english(questions: Iterable[tuple[str, bool]]) -> NotEnglish | None:
    """The questions that are plainly not English, if they are more than `MUCH` of all.

    Args:
        questions: all of them, and whether each may count as such.
    """
    total, found, first = 0, 0, ""
    for question, counted in questions:
        total += 1
        if counted and is_not_english(question):
            first = first if found else question
            found += 1
    return NotEnglish(found, found / total, first) if found and found >= MUCH * total else None


def is_not_english(question: str) -> bool:
    """Whether most letters of a question are not Latin, or its commonest words are those of another language."""
    text = normalise(question)
    words = _WORD.findall(text)
    english = sum(word in _ENGLISH for word in words)
    letters = "".join(words)
    other = 0 if letters.isascii() else sum(not _is_latin(character) for character in letters)
    if other > 1 and other > len(letters) / 2:
        # An English question may quote another script.
        return other > 8 * english
    if _ANY.isdisjoint(words):
        return False
    for strong, weak in _LANGUAGES:
        sure = sum(word in strong for word in words)
        told = sure + sum(word in weak or not word.isascii() for word in words if word not in strong)
        if sure >= (2 if english else 1) and told > max(1, 2 * english):
            return True
    return False


def _is_latin(letter: str) -> bool:
    return ord(letter) < _LATIN_ENDS or ord(letter) in _LATIN_MORE
