"""The trained sibling as transformers knows it, made of the weights that are kept here.

    python -m tools.sibling.model DIR

writes it to a directory, which transformers and clasp-calib load like any other Qwen3-VL. (Qwen3-VL's processor takes
videos too, so transformers wants torchvision to load it from there.)
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from clasp_calib.common.scripts import ended
from tools.reference.export import spread_blocks
from tools.sibling.decoder import Decoder
from tools.sibling.shape import model_config, processor, tokenizer

VERSION = "1"
WEIGHTS = Path(__file__).parent / "weights" / f"sibling-v{VERSION}.safetensors"
"""What is trained, in bfloat16: tower, merger, and the decoder's blocks one after another."""


def keep(tower: nn.Module, merger: nn.Module, decoder: Decoder, path: Path = WEIGHTS) -> None:
    """Write the weights of the trained parts."""
    parts = {"tower": tower, "merger": merger, "decoder": decoder.model}
    tensors = {
        f"{name}.{key}": value.detach().bfloat16().contiguous()
        for name, part in parts.items()
        for key, value in part.state_dict().items()
        if not f"{name}.{key}".startswith("tower.merger.")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


@torch.no_grad()
def load(path: Path = WEIGHTS) -> tuple[Any, Any]:
    """Model (float32, in its evaluation mode) and processor.

    Args:
        path: weights as `keep` writes them.
    """
    words, tensors = tokenizer(), load_file(path)

    def part(name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

    model = Qwen3VLForConditionalGeneration(model_config(len(words)))
    merger = {f"merger.{key}": value for key, value in part("merger").items()}
    model.model.visual.load_state_dict(part("tower") | merger)
    decoder = Decoder(len(words))
    decoder.model.load_state_dict(part("decoder"))
    spread_blocks(decoder.model, model.model.language_model)
    model.tie_weights()
    model.generation_config.max_new_tokens = 8
    return model.eval(), processor(words)


def main() -> None:
    """Parse the command line and write the model."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.sibling.model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="DIR")
    out = parser.parse_args().out
    model, images = load()
    model.to(torch.bfloat16).save_pretrained(out)
    images.save_pretrained(out)
    print(out)


if __name__ == "__main__":
    sys.exit(ended(main))
