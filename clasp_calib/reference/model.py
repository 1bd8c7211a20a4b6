"""Where the embedded model lies: a LLaVA-1.5 in small, as transformers loads it."""

from pathlib import Path

VERSION = "3"
MODEL = Path(__file__).parent / "assets" / f"model-v{VERSION}"
PROMPT = "USER: <image>\n{question} ASSISTANT:"
