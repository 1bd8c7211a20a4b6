"""What the tests of training share."""

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tools.reference.training.corpus import make_tokenizer
from tools.reference.training.packing import Packer


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch as the script sets it up, so that the same seed gives the same weights; afterwards as it was."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(300)


@pytest.fixture(scope="session")
def packer(tokenizer: PreTrainedTokenizerFast) -> Packer:
    return Packer(tokenizer)
