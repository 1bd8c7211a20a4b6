"""What benchmarks put behind a question, so that a model answers in the form that is scored.

A reader's ``question`` is the whole prompt of the benchmark, as it is asked; its ``bare_question`` is without these
parts. Keyword rules pass them over (``ignore`` in ``router_labeling/rules.yaml``), so they do not change a question's
class. The texts are those of LLaVA-1.5's evaluation
(https://github.com/haotian-liu/LLaVA/blob/main/docs/Evaluation.md).
"""

from collections.abc import Sequence

from clasp_calib.common.errors import InputError

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
"""What lmms-eval asks for captions; LLaVA-1.5's evaluation has none."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def shortly(question: str, suffix: str = SHORT) -> str:
    """A question with what asks for a short answer on a line of its own; as it is where it has that already."""
    return question if question.rstrip().endswith(suffix) else f"{question}\n{suffix}"


def with_choices(question: str, choices: Sequence[str], where: str) -> str:
    """A question with its choices, each on a line of its own behind its letter (``A. red``).

    Raises:
        InputError: there are more than letters.
    """
    if len(choices) > len(LETTERS):
        raise InputError(f"{where} has {len(choices)} choices; expected no more than the {len(LETTERS)} letters")
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))])
