"""The flags of ``vllm serve`` that labelling needs."""

import json

DEFAULT_MODEL = "Qwen/Qwen3-8B"
STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
"""Without `disable_any_whitespace` a greedy model may write white space until its tokens are spent."""


def labelling_flags(revision: str | None = None) -> list[str]:
    """What stands behind the model on the command line.

    Args:
        revision: commit or tag of the Hub id.
    """
    return [
        *(["--revision", revision] if revision else []),
        *["--max-model-len", "4096"],
        # Qwen3's own generation config samples; labels are greedy.
        *["--generation-config", "vllm"],
        *["--structured-outputs-config", json.dumps(STRUCTURED_OUTPUTS)],
        *["--default-chat-template-kwargs", '{"enable_thinking": false}'],
        # Reports cached tokens, from which the prefix-cache hit rate is measured.
        "--enable-prompt-tokens-details",
    ]
