"""The recipe of docs/guide/without-answers.md, executed."""

import torch
from pages import ROOT, blocks
from speaking_models import load_speaking, speaking_llava_directory, write_picture

import clasp_calib as cc

PAGE = ROOT / "docs" / "guide" / "without-answers.md"


def test_what_most_mixtures_of_the_unpruned_model_answer_is_kept(tmp_path):
    recipe: dict = {}
    exec(blocks(PAGE, "python")[0], recipe)
    model, processor = load_speaking(speaking_llava_directory(tmp_path / "model", decoder_layers=17))
    states = torch.eye(model.config.vision_config.num_hidden_layers + 1)
    samples = [
        cc.Sample(f"{number}", "What colour is the cup?", write_picture(tmp_path / f"{number}.png", number))
        for number in range(4)
    ]
    said = {one: recipe["agreed"](model, processor, samples, [states[one]]) for one in (0, 3)}
    for one, of in said.items():
        assert [sample.id for sample in of] == list("0123")
        # As the most frequent of three, and alone among two that differ.
        both = recipe["agreed"](model, processor, samples, states[[one, 3 - one, one]])
        assert both == of
    differ = [a.answers != b.answers for a, b in zip(said[0], said[3], strict=True)]
    assert any(differ)
    two = recipe["agreed"](model, processor, samples, states[[0, 3]])
    assert two == [sample for sample, other in zip(said[0], differ, strict=True) if not other]
