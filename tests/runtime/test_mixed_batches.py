"""Batches whose rows have different selectors: every row must be pruned as it is pruned alone."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import pytest
import torch
from architectures import CASES, together
from runtime_cases import fingerprint

from clasp_calib.artifacts import fits
from clasp_calib.baselines.divprune import DivPrune
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pruner import clasp
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.runtime.selectors import knobs_of, selected_by_row, selector_of

BUDGET, TOKENS = "60%", 5
LAYERED, INPUT = PruningOptions(starts=(1, 2, 4)), PruningOptions(profile="input")
COMPACT = replace(LAYERED, positions="compact")
MODELS = ("llava", "qwen2_5_vl")
BEFORE = ("divprune", "fastervlm", "vispruner", "holov", "scope")
INSIDE = ("fastv", "sparsevlm", "sparsevlm-v2", "pyramiddrop", "dart", "btp")
KINDS = ("clasp", "divprune", "vispruner", "fastv", "sparsevlm", "dart")
"""Of each way of pruning one: marked by features and by attention, inside with scores, with tokens that come back."""


@pytest.fixture(autouse=True)
def _any_model_fits(monkeypatch):
    monkeypatch.setattr(fits, "check_fits", lambda artifact, model, **how: None)


@dataclass(frozen=True)
class Stub:
    """What `clasp` reads of an artifact; classes are called as their selectors."""

    case: str
    pruning: PruningOptions
    classes: tuple[str, ...] = ("clasp", *BEFORE, *INSIDE)
    router: None = None

    def counts(self, budget):
        return schedule_for(CASES[self.case].model(), budget, self.pruning).counts

    def alpha(self, budget, label):
        layers = adapter_for(CASES[self.case].model()).vision_layers + 1
        number = self.classes.index(label)
        weights = torch.linspace(1 + number, 2, layers, dtype=torch.float64)
        return tuple((weights / weights.sum()).tolist())

    def rho(self, budget, label):
        return 0.4

    def seeding(self, budget, label):
        return "farthest"

    def relevance(self, budget, label):
        return None

    def downsample(self, budget, label):
        return None

    def selector(self, budget, label):
        return None if label == "clasp" else solved(self.case, label)


@cache
def solved(case, name):
    adapter = adapter_for(CASES[case].model())
    return knobs_of(name, selector_of(SelectorChoice(name)).solved(adapter, parse_budget(BUDGET)))


@cache
def row_of(case, number, pictures):
    """A prompt; each number has a length and pictures of its own."""
    return CASES[case].row(number % 4, 2 + number % 3, pictures, 4 + number % 5)


def said(case, options, kinds, rows, **more):
    """Ids and logits of the answer to each row, and what was kept of its pictures."""
    model, batch = CASES[case].model(), together(rows)
    asked = {"max_new_tokens": TOKENS, "return_dict_in_generate": True, "output_logits": True, **more}
    with clasp(model, Stub(case, options), budget=BUDGET, classes=list(kinds)) as pruned:
        output = model.generate(**batch, **asked)
    ids = output.sequences[:, batch["input_ids"].shape[1] :].tolist()
    return ids, torch.stack(output.logits, 1), pruned.stats


@cache
def alone(case, options, kind, number, pictures):
    return said(case, options, [kind], [row_of(case, number, pictures)])


def check(case, options, kinds, pictures=None):
    """A batch of these selectors is as its rows are by themselves."""
    pictures = pictures or (1,) * len(kinds)
    rows = [row_of(case, number, count) for number, count in enumerate(pictures)]
    ids, logits, stats = said(case, options, kinds, rows)
    for number, (kind, pictured) in enumerate(zip(kinds, pictures, strict=True)):
        (own_ids,), own_logits, own = alone(case, options, kind, number, pictured)
        assert ids[number] == own_ids, kind
        torch.testing.assert_close(logits[number], own_logits[0], rtol=1e-4, atol=1e-4)
        if own is None:
            continue
        assert stats.tokens[number] == own.tokens[0], kind
        stages = {stage.start: stage for stage in stats.stages}
        for stage in own.stages:
            assert stages[stage.start].kept(number) == stage.kept(0), (kind, stage.start)
            assert stages[stage.start].pivots(number) == stage.pivots(0)
            assert stages[stage.start].scores(number) == pytest.approx(stage.scores(0), rel=1e-4)


@pytest.mark.parametrize("options", [LAYERED, COMPACT, INPUT], ids=["layered", "compact", "input"])
@pytest.mark.parametrize("case", MODELS)
def test_every_kind_of_selector_in_one_batch(case, options):
    if case == "qwen2_5_vl" and options == COMPACT:
        pytest.skip("positions of several axes are kept")
    before = fingerprint(CASES[case].model())
    check(case, options, (*KINDS, *KINDS[:0:-1]))
    assert fingerprint(CASES[case].model()) == before


@pytest.mark.parametrize("options", [LAYERED, INPUT], ids=["layered", "input"])
@pytest.mark.parametrize("case", MODELS)
def test_rows_with_several_pictures_and_with_none(case, options):
    check(case, options, ["divprune", "sparsevlm", "clasp", "vispruner"], (2, 1, 2, 0))
    check(case, options, ["divprune", "sparsevlm", "clasp", "fastv"], (1, 0, 0, 2))


@pytest.mark.slow
@pytest.mark.parametrize("options", [LAYERED, COMPACT, INPUT], ids=["layered", "compact", "input"])
@pytest.mark.parametrize("case", MODELS)
def test_every_pair_of_selectors(case, options):
    if case == "qwen2_5_vl" and options == COMPACT:
        pytest.skip("positions of several axes are kept")
    for pair in combinations(Stub(case, options).classes, 2):
        check(case, options, pair, (1, 2))


@pytest.mark.parametrize("case", ["qwen3_vl", "qwen2_5_vl video", "llava_onevision"])
@pytest.mark.parametrize("options", [LAYERED, INPUT], ids=["layered", "input"])
def test_selectors_inside_run_wherever_the_decoder_can_be_pruned(case, options):
    """Deepstack, videos, and towers of which no layout is known."""
    check(case, options, ["dart", "clasp", "sparsevlm", "fastv"])


@pytest.mark.parametrize(("case", "options"), [("llava", LAYERED), ("qwen2_5_vl", INPUT)])
def test_beams_are_as_those_of_each_row_alone(case, options):
    kinds, rows = ["vispruner", "sparsevlm", "clasp"], [row_of(case, number, 1) for number in range(3)]

    def answers(given, classes):
        with clasp(CASES[case].model(), Stub(case, options), budget=BUDGET, classes=classes):
            output = CASES[case].model().generate(**given, max_new_tokens=TOKENS, num_beams=2)
        return output[:, given["input_ids"].shape[1] :].tolist()

    together_ids = answers(together(rows), kinds)
    assert together_ids == [answers(row, [kind])[0] for kind, row in zip(kinds, rows, strict=True)]


@pytest.mark.parametrize("options", [COMPACT, INPUT], ids=["compact", "input"])
def test_answers_do_not_rate(options):
    """Teacher forcing: lengths of the prompts are told for all rows, and before anything was dropped."""
    kinds, answer = ["vispruner", "sparsevlm", "clasp", "dart", "fastv"], torch.tensor([[40, 20, 30]])
    rows = []
    for number in range(len(kinds)):  # The longest row becomes the shortest, so that all end elsewhere than before.
        row = dict(row_of("llava", number, 3 if number == 0 else 1))
        row["input_ids"] = torch.cat([row["input_ids"], answer], 1)
        row["attention_mask"] = torch.ones_like(row["input_ids"])
        rows.append(row)
    batch, model = together(rows), CASES["llava"].model()

    def logits(given, classes):
        width = given["input_ids"].shape[1]
        position = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with (
            torch.no_grad(),
            clasp(
                model, Stub("llava", options), budget=BUDGET, classes=classes, prompt_lengths=width - answer.shape[1]
            ) as pruned,
        ):
            return model(**given, position_ids=position).logits[:, -4:], pruned.stats

    found, stats = logits(batch, kinds)
    for number, (kind, row) in enumerate(zip(kinds, rows, strict=True)):
        own, own_stats = logits(row, [kind])
        torch.testing.assert_close(found[number], own[0], rtol=1e-4, atol=1e-4)
        assert stats.tokens[number] == own_stats.tokens[0]


@pytest.mark.parametrize("pictures", [0, 1], ids=["words", "picture"])
@pytest.mark.parametrize("options", [LAYERED, COMPACT, INPUT], ids=["layered", "compact", "input"])
def test_a_conversation_goes_on_from_the_cache(options, pictures):
    """A second turn, in rows that hold different numbers of tokens."""
    kinds, model = ["divprune", "sparsevlm", "clasp", "dart"], CASES["llava"].model()

    def turns(given, more, classes):
        mask = given["attention_mask"]
        with torch.no_grad(), clasp(model, Stub("llava", options), budget=BUDGET, classes=classes):
            first = model(**given, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=True)
            mask = torch.cat([mask, more["attention_mask"]], 1)
            position = (mask.cumsum(1) - 1)[:, -more["input_ids"].shape[1] :]
            more = more | {"attention_mask": mask, "position_ids": position}
            return model(**more, past_key_values=first.past_key_values).logits[:, -5:]

    rows = [row_of("llava", number, 1) for number in range(4)]
    more = [CASES["llava"].row(number, 2, pictures, 5) for number in range(4)]
    found = turns(together(rows), together(more), kinds)
    for number, kind in enumerate(kinds):
        torch.testing.assert_close(found[number], turns(rows[number], more[number], [kind])[0], rtol=1e-4, atol=1e-4)


class Lonely(DivPrune):
    """It attaches itself in a way of its own."""

    def attached(self, model, adapter, prompt_lengths):
        return super().attached(model, adapter, prompt_lengths)


def test_what_cannot_share_a_batch_is_refused(monkeypatch):
    model = CASES["llava"].model()
    alpha = torch.eye(adapter_for(model).vision_layers + 1, dtype=torch.float64)[[3, 3]]
    lonely = {SelectorChoice(kind.__name__): kind(keep="50%") for kind in (Lonely, DivPrune)}
    with (
        pytest.raises(InputError, match=r"the selector Lonely\(keep='50%'\) cannot share a batch with others; give"),
        selected_by_row(model, lonely, [0, 1], alpha),
    ):
        pass
    kept = replace(INPUT, positions="keep")
    with (
        pytest.raises(InputError, match=r"with positions='compact', and others with positions='keep'; give the rows"),
        clasp(model, Stub("llava", kept), budget=BUDGET, classes=["clasp", "divprune"]),
    ):
        pass
    batch = together([row_of("llava", number, 1) for number in range(2)])
    batch["attention_mask"][:, -2] = 0
    with (
        pytest.raises(ModelError, match="leaves out tokens in the midst of a row"),
        clasp(model, Stub("llava", LAYERED), budget=BUDGET, classes=["clasp", "dart"]),
    ):
        model.generate(**batch, max_new_tokens=1)
    with (
        pytest.raises(ModelError, match="cannot be encoded without their prompts"),
        clasp(model, Stub("llava", LAYERED), budget=BUDGET, classes=["clasp", "divprune"]),
    ):
        model.model.get_image_features(batch["pixel_values"])
