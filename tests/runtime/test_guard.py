"""What a pruned model is guarded from: second threads, copies, and numbers that are not finite."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import torch
from architectures import CASES
from runtime_cases import FULL, SCHEDULE, fingerprint, generated, model
from tiny_models import tiny_batch, tiny_llava

from clasp_calib.baselines.registry import METHODS
from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.finite import NonFiniteError, all_finite, finite_logits
from clasp_calib.runtime.pruner import prune

ALPHA = torch.tensor([[0, 0.5, 0, 0.5, 0]])
KINDS = {
    "stages": lambda m: prune(m, schedule=SCHEDULE, rho=0.5),
    "fusion alone": lambda m: prune(m, schedule=FULL, rho=1.0, alpha_BL=ALPHA),
    "before the decoder": lambda m: METHODS["divprune"]()(m, native="default"),
}


class Held:
    """A forward that stands still in the tower of a picture until it is let go."""

    def __init__(self, part):
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.handle = part.register_forward_pre_hook(self.wait)
        self.first = threading.Lock()

    def wait(self, *_):
        if self.first.acquire(blocking=False):
            self.inside.set()
            assert self.go_on.wait(60)


@pytest.mark.parametrize("part", ["vision_tower", "language_model"])
@pytest.mark.parametrize("call", ["forward", "generate"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_thread_is_refused_and_the_first_is_right(kind, call, part):
    model, batch = tiny_llava(), tiny_batch(tiny_llava(), [(3, 7)])

    def run():
        with torch.no_grad():
            return model(**batch).logits if call == "forward" else model.generate(**batch, max_new_tokens=3)

    with KINDS[kind](model), ThreadPoolExecutor(2) as pool:
        expected = run()
        held = Held(model.model.get_submodule(part))
        first = pool.submit(run)
        assert held.inside.wait(60)
        with pytest.raises(ModelError, match="another thread"):
            pool.submit(run).result(60)
        with pytest.raises(ModelError, match="another thread"):
            model.generate(**batch, max_new_tokens=1)
        held.go_on.set()
        assert torch.equal(first.result(60), expected)
        held.handle.remove()
        for _ in range(4):  # in turn, whichever thread of the pool it is
            assert torch.equal(pool.submit(run).result(60), expected)


def leave_under_a_call(m, pool, submitted, failure=None):
    """Within the block another thread begins a call; it goes on after the block."""
    held = Held(m.model.language_model)
    try:
        with KINDS["stages"](m):
            under = submitted(pool)
            assert held.inside.wait(60)
            if failure is not None:
                raise failure
    finally:
        held.go_on.set()
        wait([under], 60)
        held.handle.remove()


@pytest.mark.parametrize("call", ["forward", "generate"])
def test_the_context_does_not_end_silently_under_a_call_of_another_thread(call):
    m, batch = tiny_llava(), tiny_batch(tiny_llava(), [(3, 7)])
    calls = {"forward": lambda p: p.submit(m, **batch), "generate": lambda p: p.submit(m.generate, **batch)}
    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        with pytest.raises(ModelError, match="while another thread is calling"):
            leave_under_a_call(m, pool, calls[call])
        with pytest.raises(ZeroDivisionError):  # what went wrong first is told
            leave_under_a_call(m, pool, calls[call], ZeroDivisionError())
        with KINDS["stages"](m):
            calls[call](pool).result(60)


def test_two_mixtures_at_once_are_refused():
    m = tiny_llava()
    with KINDS["fusion alone"](m), pytest.raises(ModelError, match="being pruned already"):
        KINDS["fusion alone"](m).__enter__()
    with KINDS["fusion alone"](m):
        generated(m, tiny_batch(m), 1)


def test_a_mixture_of_no_numbers_is_refused():
    with pytest.raises(ModelError, match="alpha has weights that are not finite"):
        prune(model(), schedule=SCHEDULE, rho=1.0, alpha_BL=ALPHA * torch.tensor([1, 1, 1, torch.nan, 1])).__enter__()


def test_threads_go_on_in_turn_from_caches_of_their_own():
    m, batches = model(), [tiny_batch(model(), [(3, 7)], seed=seed) for seed in (1, 2)]
    with prune(m, schedule=SCHEDULE, rho=0.5), torch.no_grad(), ThreadPoolExecutor(2) as pool:
        expected = [generated(m, batch, 3)[0] for batch in batches]
        outputs, found = [pool.submit(lambda b=b: m(**b)).result() for b in batches], [[], []]
        for _ in range(3):
            for row in (0, 1):
                token = outputs[row].logits[:, -1:].argmax(-1)
                found[row].append(int(token))
                ids, cache = {"input_ids": token}, outputs[row].past_key_values
                length = torch.tensor([[batches[row]["input_ids"].shape[1] + len(found[row]) - 1]])
                outputs[row] = pool.submit(
                    lambda i=ids, c=cache, p=length: m(**i, past_key_values=c, position_ids=p)
                ).result()
        assert found == expected


def test_a_call_that_fails_gives_its_turn_back():
    m, batch = model(), tiny_batch(model())
    with prune(m, schedule=SCHEDULE, rho=0.5), ThreadPoolExecutor(1) as pool, torch.no_grad():
        for attempt in (m, m.generate):
            with pytest.raises(ModelError):
                attempt(**{**batch, "pixel_values": batch["pixel_values"] * torch.nan})
            with pytest.raises(ModelError, match="needs input_ids"):
                attempt(inputs_embeds=torch.zeros(1, 3, 32), pixel_values=batch["pixel_values"])
        assert pool.submit(generated, m, batch, 2).result() == generated(m, batch, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_within_the_context_are_refused(kind):
    m = tiny_llava()
    before = fingerprint(m)
    with KINDS[kind](m):
        for copied in (m, m.model, m.model.language_model, m.model.vision_tower, [{"model": m}]):
            with pytest.raises(ModelError, match="outside of the context"):
                copy.deepcopy(copied)
            with pytest.raises(ModelError, match="outside of the context"):
                pickle.dumps(copied)
    assert fingerprint(m) == before
    twins, batch = (copy.deepcopy(m), pickle.loads(pickle.dumps(m))), tiny_batch(m)
    assert [generated(twin, batch) for twin in twins] == [generated(m, batch)] * 2


def test_one_attention_module_is_not_copied_either():
    m = model()
    with prune(m, schedule=SCHEDULE, rho=0.5), pytest.raises(ModelError, match="outside of the context"):
        copy.deepcopy(m.model.language_model.layers[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_that_are_not_finite(kind, value):
    m, batch = model(), tiny_batch(model())
    batch["pixel_values"][1, 2, 5, 5] = value
    with KINDS[kind](m):
        for attempt in (m, m.generate):
            with pytest.raises(ModelError, match="pixel_values of picture 1 are not all finite"):
                attempt(**batch)


def test_patches_of_one_sequence_that_are_not_finite():
    case = CASES["qwen2_vl"]
    row = case.row(0, 2, 1, 3)
    row["pixel_values"][7, 9] = torch.nan
    with prune(case.model(), schedule=_share(case), rho=0.5), pytest.raises(ModelError, match="pixel_values"):
        case.model()(**row)


def test_features_that_are_not_finite():
    m, batch = model(), tiny_batch(model())
    with torch.no_grad():
        features = m.model.get_image_features(batch.pop("pixel_values"), return_dict=True)
    features.pooler_output = list(features.pooler_output)
    features.pooler_output[2][3, 4] = torch.inf
    with prune(m, schedule=SCHEDULE, rho=0.5), pytest.raises(ModelError, match=r"image features .* of picture 2"):
        m(**batch, mm_encoder_outputs={"image": features})


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("layer", "stage"), [(0, 1), (1, 2), (3, 4)])
def test_attention_that_is_not_finite_names_the_stage(layer, stage, value):
    m = tiny_llava()
    with torch.no_grad():
        m.model.language_model.layers[layer].self_attn.k_proj.weight[0, 0] = value
    with prune(m, schedule=SCHEDULE, rho=0.5), pytest.raises(NonFiniteError, match=f"before decoder layer {stage} "):
        m(**tiny_batch(m))


def test_a_row_s_own_padding_is_no_reason_to_stop():
    m, batch = model(), tiny_batch(model(), [(3, 30), (1, 1)])
    with prune(m, schedule=SCHEDULE, rho=0.5) as pruner:
        generated(m, batch, 2)
    assert all(bool(stage.scores_BN.isfinite().all()) for stage in pruner.stats.stages)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["divprune", "visionzip"])
def test_a_projector_that_overflows_is_told_before_tokens_are_dropped(name, value):
    m = tiny_llava()
    with torch.no_grad():
        m.model.multi_modal_projector.linear_2.bias[0] = value  # of which -inf is the mark of what is dropped
    with METHODS[name]()(m, native="default"), pytest.raises(NonFiniteError, match="features of a picture"):
        m.generate(**tiny_batch(m), max_new_tokens=1)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("model.multi_modal_projector.linear_1.bias", "what enters the decoder;"),
        ("model.language_model.layers.4.mlp.up_proj.weight", "what enters decoder layer 5;"),
        ("lm_head.weight", "though keys and values of all decoder layers are;"),
    ],
)
def test_logits_that_are_not_finite_tell_where_they_begin(place, told):
    m = tiny_llava()
    with torch.no_grad():
        m.get_parameter(place).view(-1)[0] = torch.nan
    with pytest.raises(ModelError, match=f"sample 7: the model's logits.*{told}"), finite_logits(m, "sample 7"):
        m.generate(**tiny_batch(m, [(3, 4)]), max_new_tokens=2)
    assert not m._forward_hooks


def test_float16_that_overflows_says_what_helps():
    m = tiny_llava().half()
    with torch.no_grad():
        m.model.language_model.layers[2].mlp.down_proj.weight.mul_(5e4)
    batch = tiny_batch(m, [(3, 4)])
    batch["pixel_values"] = batch["pixel_values"].half()
    with pytest.raises(ModelError, match="--dtype bfloat16"), finite_logits(m, "x"), torch.no_grad():
        m(**batch)
    with finite_logits(m.float(), "x"), torch.no_grad():
        m(**{**batch, "pixel_values": batch["pixel_values"].float()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("size", [1, 7, 64, 1001])
def test_one_number_among_many_is_found(dtype, value, size):
    numbers = torch.full((size,), torch.finfo(dtype).max, dtype=dtype)
    assert bool(all_finite(numbers))
    assert bool(all_finite(-numbers))
    for place in {0, size // 2, size - 1}:
        spoilt = numbers.clone()
        spoilt[place] = value
        assert not bool(all_finite(spoilt))
        assert not bool(all_finite(spoilt.expand(3, size).T))


def test_nothing_is_finite():
    assert bool(all_finite(torch.empty(0, 3)))


def _share(case):
    from clasp_calib.common.pruning_options import PruningOptions
    from clasp_calib.runtime.budgeting import schedule_for

    return schedule_for(case.model(), "50%", PruningOptions(starts=(1, 2, 4)))
