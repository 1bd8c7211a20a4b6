import pytest
import torch

from clasp_calib.runtime.scoring import choose_raters, gather_index, rater_attention, take


def prompt(text="tttVVVtttttt"):
    """One row: t text, V visual, . padding, a answer."""
    visual = torch.tensor([[c == "V" for c in text]])
    inside = torch.tensor([[c in "tV" for c in text]])
    return visual, inside


@pytest.mark.parametrize(
    ("text", "mode", "raters"),
    [
        ("tttVVVtttt", "all", [6, 7, 8, 9]),
        ("..tVVtVVtt", "all", [8, 9]),
        ("..tVVttaaa", "all", [5, 6]),
        ("..tVVttaaa", "last", [6]),
        ("tttVVV", "all", [5]),
        ("..tttt", "all", [2, 3, 4, 5]),
        ("tttVVVt", "sparsevlm", [6]),
    ],
)
def test_which_text_rates(text, mode, raters):
    visual_BS, prompt_BS = prompt(text)
    embeddings_BSD = torch.randn(1, len(text), 4, generator=torch.Generator().manual_seed(0))
    assert choose_raters(embeddings_BSD, visual_BS, prompt_BS, mode)[0].nonzero().flatten().tolist() == raters


def test_sparsevlm_raters_are_above_the_mean_share():
    generator = torch.Generator().manual_seed(4)
    visual_BS, prompt_BS = prompt("..tVVVVtttttaa")
    embeddings_BSD = torch.randn(1, 14, 6, generator=generator)
    got = choose_raters(embeddings_BSD, visual_BS, prompt_BS)[0].nonzero().flatten().tolist()
    visual, text = embeddings_BSD[0, 3:7], embeddings_BSD[0, 7:12]
    shares = (visual @ text.T).softmax(-1).mean(0)
    assert got == [7 + i for i in range(5) if shares[i] > shares.mean()]
    assert 0 < len(got) < 5


def test_equal_text_tokens_all_rate():
    visual_BS, prompt_BS = prompt("VVVttt")
    embeddings_BSD = torch.randn(1, 6, 4)
    embeddings_BSD[:, 3:] = embeddings_BSD[:, 3:4] * torch.tensor([1, 1 + 1e-6, 1 - 1e-6])[:, None]
    assert choose_raters(embeddings_BSD, visual_BS, prompt_BS)[0].tolist() == [False] * 3 + [True] * 3


def test_raters_of_a_row_do_not_depend_on_its_padding():
    generator = torch.Generator().manual_seed(5)
    embeddings_BSD = torch.randn(1, 10, 6, generator=generator)
    visual_BS, prompt_BS = prompt("tVVVtttttt")
    alone = choose_raters(embeddings_BSD, visual_BS, prompt_BS)
    padded = choose_raters(
        torch.cat([torch.randn(1, 3, 6), embeddings_BSD], 1),
        *(torch.cat([torch.zeros(1, 3, dtype=torch.bool), x], 1) for x in (visual_BS, prompt_BS)),
    )
    assert torch.equal(padded[:, 3:], alone)


@pytest.mark.parametrize("cached", [0, 4])
def test_attention_equals_the_full_matrix(cached):
    generator = torch.Generator().manual_seed(1)
    rows, heads, groups, queries, width = 2, 4, 2, 9, 8
    query = torch.randn(rows, heads, queries, width, generator=generator)
    key = torch.randn(rows, groups, cached + queries, width, generator=generator)
    key_valid_BT = torch.ones(rows, cached + queries, dtype=torch.bool)
    key_valid_BT[1, : cached + 2] = False
    rater_BS = torch.zeros(rows, queries, dtype=torch.bool)
    rater_BS[0, 6:] = True
    rater_BS[1, 7] = True
    rater_BR = gather_index(rater_BS)
    rater_BR[1, 0] = 0  # what does not rate may stand anywhere, also where no key is seen
    got = rater_attention(query, key, rater_BR, take(rater_BS, rater_BR), scaling=0.3, key_valid_BT=key_valid_BT)
    logits = query @ key.repeat_interleave(heads // groups, 1).mT * 0.3
    hidden = torch.ones(queries, cached + queries).triu(1 + cached).bool() | ~key_valid_BT[:, None, None]
    attention = logits.masked_fill(hidden, -torch.inf).softmax(-1).mean(1)[:, :, cached:]
    for row in range(rows):
        assert torch.allclose(got[row], attention[row][rater_BS[row]].mean(0), atol=1e-6)


def test_gather_index_keeps_order_and_pads_on_the_left():
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    index = gather_index(mask)
    assert index[0].tolist() == [0, 2, 3]
    assert index[1, -1] == 2
    assert take(mask, index).tolist() == [[True] * 3, [False, False, True]]
