"""What methods see of an image: attention and keys of the tower, and where every visual token comes from."""

import pytest
import torch
from architectures import CASES, together
from runtime_cases import fingerprint

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.encoding import Encoded, Kept, chosen_tokens, marked

KNOWN = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl")


def seen(case, pictures=(1, 2), attention="sdpa", blocks=None):
    """The images of a batch as a method sees them, and what of their features went on."""
    model, adapter, images = case.model(attention), adapter_for(case.model()), []
    inputs = together(case.rows(pictures))
    names = ("pixel_values", "image_sizes", "image_grid_thw")
    arguments = {name: inputs[name] for name in names if name in inputs}

    def look(image):
        images.append(image)
        return Kept(torch.arange(len(image.layout.cell_N)))

    blocks = [adapter.attention_block] if blocks is None else blocks
    with chosen_tokens(model, adapter, blocks, look, in_place=True), torch.no_grad():
        output = model.model.get_image_features(**arguments, return_dict=True)
    with torch.no_grad():
        own = model.model.get_image_features(**arguments, return_dict=True)
    assert all(torch.equal(a, b) for a, b in zip(output.pooler_output, own.pooler_output, strict=True))
    return model, arguments, images


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_attention_is_that_of_the_class_token(name):
    """Against transformers' own attention matrices, of every tile."""
    model, arguments, images = seen(CASES[name], attention="eager", blocks=[0, 2, 3])
    pixels = arguments["pixel_values"]
    if name == "llava_next":
        rows = adapter_for(model).rows(arguments)
        pixels = torch.cat([tiles[:count] for tiles, count in zip(pixels, rows, strict=True)])
    with torch.no_grad():
        own = model.model.vision_tower(pixels, output_attentions=True).attentions
    for block in (0, 2, 3):
        parts = [image.attention[block].received().unflatten(1, (image.layout.tiles, -1)) for image in images]
        got_RHP = torch.cat([part.transpose(0, 1) for part in parts])
        torch.testing.assert_close(got_RHP, own[block][:, :, 0, 1:])


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_without_a_class_token_attention_is_what_all_patches_give(name):
    """By hand: queries and keys from the block's input, patches put back from the order of the windows."""
    case, model = CASES[name], CASES[name].model()
    adapter, inputs = adapter_for(model), {}
    block = model.model.visual.blocks[adapter.attention_block]
    first = model.model.visual.blocks[0]
    notes = (
        block.attn.register_forward_pre_hook(lambda _, args, kw: inputs.update(x=args[0], **kw), with_kwargs=True),
        first.register_forward_pre_hook(lambda _, args, kw: inputs.update(taken=args[0]), with_kwargs=True),
        model.model.visual.patch_embed.register_forward_hook(lambda _, __, out: inputs.update(patches=out)),
    )
    _, arguments, images = seen(case, pictures=(1, 1))
    for note in notes:
        note.remove()
    order = torch.cdist(inputs["patches"].double(), inputs["taken"].double()).argmin(1)  # where each patch was taken
    heads = model.config.vision_config.num_heads
    qkv = block.attn.qkv(inputs["x"]).view(len(order), 3, heads, -1)
    cos, sin = (part[:, None] for part in inputs["position_embeddings"])

    def turned(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    query, key, begin = turned(qkv[:, 0]).double(), turned(qkv[:, 1]).double(), 0
    for image, grid in zip(images, arguments["image_grid_thw"], strict=True):
        mine = slice(begin, begin + int(grid.prod()))
        begin = mine.stop
        logits = torch.einsum("ihd,jhd->hij", query[mine], key[mine]) * query.shape[-1] ** -0.5
        given = logits.softmax(-1).mean(1)[:, order[mine] - mine.start]
        attention = image.attention[adapter.attention_block]
        torch.testing.assert_close(
            attention.received().double(), given.unflatten(1, (-1, 4)).mean(2), atol=1e-5, rtol=1e-4
        )
        keys = key[mine][order[mine] - mine.start].unflatten(0, (-1, 4)).mean(1)
        torch.testing.assert_close(attention.keys().double(), keys, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KNOWN)
def test_every_token_is_what_the_projector_makes_of_its_cell(name):
    model, _, images = seen(CASES[name])
    for image in images:
        layout = image.layout
        assert len(layout.cell_N) == len(image.features_ND)
        assert len(image.states_UC) == layout.cells == layout.tiles * layout.grid[0] * layout.grid[1]
        with torch.no_grad():
            projected = image.project(image.states_UC)
            assert torch.equal(projected, image.features_ND)
            if name in ("llava", "llava_next"):
                projected_UD = model.model.multi_modal_projector(image.states_UC)
                shown = layout.cell_N >= 0
                torch.testing.assert_close(projected_UD[layout.cell_N[shown]], image.features_ND[shown])
                if not shown.all():
                    assert torch.equal(image.features_ND[~shown], model.model.image_newline.expand((~shown).sum(), -1))
        patches = image.patches()
        assert sorted(torch.cat(patches).tolist()) == (layout.cell_N >= 0).nonzero().flatten().tolist()
        for token_P in patches:
            rows, columns = image.shown(token_P)
            cells_RC = image.cells(token_P).view(rows, columns)
            assert (cells_RC.diff(dim=1) == 1).all()
            assert (cells_RC.diff(dim=0) == layout.grid[1]).all()


def test_states_in_place_of_others_pass_the_projector():
    model, _, images = seen(CASES["llava"])
    image, states = images[0], torch.randn(2, 16)
    with torch.no_grad():
        features = marked(image, Kept(torch.tensor([9, 4]), states_TC=states), in_place=False)
        expected = model.model.multi_modal_projector(states)
        in_place = marked(image, Kept(torch.tensor([9, 4]), states_TC=states), in_place=True)
    torch.testing.assert_close(features[[4, 9]], expected)
    torch.testing.assert_close(in_place[[9, 4]], expected)
    assert features.isinf().any(1).nonzero().flatten().tolist() == [i for i in range(16) if i not in (4, 9)]


def test_one_place_for_two_is_refused():
    layout = Layout(torch.arange(4), 1, (2, 2))
    image = Encoded(torch.zeros(4, 3), layout, torch.zeros(4, 2), None, {}, lambda states: states)
    with pytest.raises(ModelError, match="one place to several"):
        marked(image, Kept(torch.tensor([1, 1])), in_place=True)


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "video_llava", "qwen3_vl"])
def test_architectures_whose_tokens_have_no_known_origin_are_refused(name):
    model, adapter = CASES[name].model(), adapter_for(CASES[name].model())
    before = fingerprint(model)
    with pytest.raises(ModelError, match=r"LLaVA-1\.5, LLaVA-NeXT, Qwen2-VL and Qwen2\.5-VL"):
        chosen_tokens(model, adapter, [], lambda image: None, in_place=True).__enter__()
    assert fingerprint(model) == before
