"""CDPruner in a contest: patches are rated by each sample's own question."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from clasp_calib.baselines.cdpruner import CDPruner
from clasp_calib.baselines.mechanisms.clip_text import clip_ids
from clasp_calib.calib.studies.contest import encoded
from clasp_calib.calib.studies.entrants import related
from clasp_calib.common.errors import InputError


class Letters:
    """A tokenizer with one token a letter."""

    model_max_length, bos_token_id, eos_token_id = 6, 98, 99

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return type("Given", (), {"input_ids": [ord(letter) - 97 for letter in text]})


@pytest.fixture
def clip(bench, tmp_path):
    """A directory with a CLIP model of the bench's tower, and the bench's tokenizer."""
    torch.manual_seed(0)
    tokenizer = bench.processor.tokenizer
    vision = bench.model.config.vision_config.to_dict()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=tokenizer.eos_token_id,
    ).to_dict()
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def kept(bench, entrant, sample):
    with entrant.apply(bench.model, sample, 0) as run, torch.no_grad():
        bench.model(**encoded(bench.model, bench.processor, bench.prompter, sample))
    return run.stats.stages[0].kept(0)


@pytest.mark.parametrize("tower", [False, True])
def test_every_sample_is_rated_by_its_own_question(bench, clip, tower):
    samples = bench.samples[:3]
    assert len({s.image for s in samples}) == 1
    given = (bench.model, bench.processor.tokenizer, CDPruner(), "6", samples, str(clip) if tower else None)
    entrant = related(*given)
    assert entrant.method == ("cdpruner" if tower else "cdpruner-embeddings")
    told = "the text tower of clip " if tower else "the question's embeddings"
    assert str(entrant.knobs["rated by"]).startswith(told)
    found = [kept(bench, entrant, sample) for sample in samples]
    assert [len(of) for of in found] == [6] * 3
    assert len(set(map(tuple, found))) > 1
    assert [kept(bench, related(*given), sample) for sample in samples] == found


def test_a_directory_without_the_right_clip_is_refused(bench, clip, tmp_path):
    given = (bench.model, bench.processor.tokenizer, CDPruner(), "6", bench.samples)
    with pytest.raises(InputError, match="holds no CLIP model with its tokenizer"):
        related(*given, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds a llava model and no CLIP"):
        related(*given, bench.model.name_or_path)
    widths = {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    wide = CLIPVisionConfig(**widths, image_size=28)
    config = CLIPConfig(vision_config=wide.to_dict(), text_config=CLIPTextConfig(num_hidden_layers=1).to_dict())
    CLIPModel(config).save_pretrained(tmp_path / "wide")
    bench.processor.tokenizer.save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match=r"has width 32 and 1 blocks, and the model's has 16 and 4"):
        related(*given, str(tmp_path / "wide"))


def test_a_long_question_is_given_to_clip_in_parts():
    assert clip_ids(Letters(), "abcdef").tolist() == [[98, 0, 1, 2, 3, 99], [98, 4, 5, 99, 99, 99]]
    assert clip_ids(Letters(), "").tolist() == [[98, 99]]
