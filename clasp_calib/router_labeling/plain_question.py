"""What an embedding is shown of a prompt: the question, without options and answer formats, both ends if it is long."""

from clasp_calib.router_labeling.rules import RuleSet

LONGEST = 1000
"""Characters that are shown. Our choice: about as many as the 256 tokens that all-MiniLM-L6-v2 was trained on."""
_HEAD, _CUT = 400, " ... "


def plain_question(prompt: str, rules: RuleSet) -> str:
    """The question in a prompt.

    What the rules' ``ignore`` names goes, as it does for the rules themselves; white space runs together, and of a
    long question the middle goes. A prompt of which nothing is left is kept.

    Args:
        prompt: what is asked.
        rules: keyword rules.
    """
    text = " ".join(rules.bare(prompt).split()) or " ".join(prompt.split())
    if len(text) > LONGEST:
        text = text[:_HEAD] + _CUT + text[_HEAD + len(_CUT) - LONGEST :]
    # Lone surrogates are no text to a tokenizer.
    return text.encode("utf-8", "replace").decode()
