"""Methods that answer the same questions, and what is kept of it."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from clasp_calib.baselines.registry import method
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.studies.answers import Answered, AnswerJournal, Asked, SolvedKnobs
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.contest import TURNS, UNPRUNED, Answerer, Entrant, encoded, hold_contest
from clasp_calib.calib.studies.costs import prefill_costs
from clasp_calib.calib.studies.entrants import nothing
from clasp_calib.calib.studies.own_entrants import drawn
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample
from clasp_calib.common.token_range import TokenRange
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.flops import layer_flops
from clasp_calib.runtime.schedule import Schedule

IDENTITY = {"model": "tiny"}
ASKED = Asked("fastv", "6", "abc", 0, "one")


def fastv(budget):
    solved = method("fastv").with_native("default")
    return Entrant("fastv", budget, lambda model, sample, seed: solved(model, budget=budget), {"budget": budget})


def hold(bench, entrants, folder, samples=None):
    with AnswerJournal(folder, IDENTITY) as journal:
        given = bench.samples[:6] if samples is None else samples
        return hold_contest(alone(bench), entrants, given, journal, seed=0)


def test_an_answer_is_taken_up_where_its_sample_is_as_it_was(tmp_path):
    answered, other = Answered("red", 1.0, 6.0, 1e9), replace(ASKED, sample="two")
    with AnswerJournal(tmp_path, IDENTITY, {"one": "a"}) as journal:
        journal.add(ASKED, answered)
    with AnswerJournal(tmp_path, IDENTITY, {"one": "b", "two": "c"}) as grown:
        assert grown.get(ASKED) is None
        grown.add(other, answered)
    with AnswerJournal(tmp_path, IDENTITY, {"one": "a", "two": "c"}) as again:
        assert again.get(ASKED) == again.get(other) == answered


def alone(bench):
    return InProcess(Answerer(bench.model, bench.processor, bench.prompter, 4))


def test_many_answers_about_a_sample_are_asked_for_in_parts(bench):
    class Counting(InProcess):
        def do(self, tasks):
            self.turns = [len(task.turns) for task in tasks]
            return super().do(tasks)

    many = [Entrant(UNPRUNED, "100%", nothing), Entrant("random", "6", nothing, seeds=tuple(range(TURNS + 1)))]
    workers = Counting(Answerer(bench.model, bench.processor, bench.prompter, 1))
    with AnswerJournal(None, IDENTITY) as journal:
        contest = hold_contest(workers, many, bench.samples[:2], journal, seed=0)
    assert workers.turns == [TURNS, 2, TURNS, 2]
    assert len(contest.answers) == 2 * (TURNS + 2)


@pytest.fixture
def asked_samples(bench, tmp_path):
    """Samples whose reference is what the unpruned model says, and ends."""
    plain = hold(bench, [Entrant(UNPRUNED, "100%", nothing)], tmp_path / "plain", bench.samples)
    entrant = plain.entrants[0]
    texts = [plain.answers[entrant.asked(s, 0)].text for s in plain.samples]
    ended = [(s, text) for s, text in zip(plain.samples, texts, strict=True) if len(text.split()) < 4]
    return [replace(s, answers=(text,)) for s, text in ended[:6]]


def test_the_unpruned_model_scores_what_it_says_and_costs_all_tokens(bench, asked_samples, tmp_path):
    entrants = [Entrant(UNPRUNED, "100%", nothing), fastv("6")]
    contest = hold(bench, entrants, tmp_path, asked_samples)
    table = contest.comparison("6").table()
    assert table[UNPRUNED]["macro"].mean == 1.0
    assert contest.tokens(entrants[0]) == TokenRange(16, 16, 16)
    mean, least, most = vars(contest.tokens(entrants[1])).values()
    assert least == most == mean
    assert abs(mean - 6) < 0.5
    config = bench.model.config.get_text_config()
    text = len(bench.prompter.prompt(asked_samples[0].question)) - 16
    one = layer_flops(16 + text, config.hidden_size, config.intermediate_size)
    first = contest.answers[entrants[0].asked(asked_samples[0], 0)]
    assert first.flops == pytest.approx(config.num_hidden_layers * one)
    assert contest.flops(entrants[1]) < contest.flops(entrants[0])


def test_known_answers_are_not_asked_again(bench, asked_samples, tmp_path):
    entrants = [Entrant(UNPRUNED, "100%", nothing)]
    first = hold(bench, entrants, tmp_path, asked_samples[:4])

    def never(model, sample, seed):
        assert sample.id not in {s.id for s in asked_samples[:4]}
        return nullcontext()

    again = hold(bench, [replace(entrants[0], apply=never)], tmp_path, asked_samples)
    assert len(again.answers) == 6
    for asked, answered in first.answers.items():
        assert again.answers[asked] == answered


def test_seeds_are_averaged(bench, asked_samples, tmp_path):
    with AnswerJournal(tmp_path, IDENTITY) as journal:
        entrant = Entrant("random", "6", nothing, seeds=(0, 1, 2, 3))
        plain = Entrant(UNPRUNED, "100%", nothing)
        for number in entrant.seeds:
            journal.add(entrant.asked(asked_samples[0], number), Answered("x", float(number == 2), 6.0, 1.0))
        journal.add(plain.asked(asked_samples[0], 0), Answered("x", 1.0, 16.0, 2.0))
        contest = hold_contest(alone(bench), [plain, entrant], asked_samples[:1], journal, seed=0)
    assert np.array_equal(contest.comparison("6").scores, [[1.0], [0.25]])


def test_costs_grow_with_tokens(bench):
    entrants = [Entrant(UNPRUNED, "100%", nothing), fastv("6")]
    plain, pruned = prefill_costs(bench.model, bench.processor, bench.prompter, entrants, bench.samples[:2])
    assert plain.seconds > 0
    assert plain.peak_bytes > pruned.peak_bytes > 0


def test_a_batch_costs_more_than_one_picture(bench):
    """Of random pruning too, which draws for each row."""
    adapter = adapter_for(bench.model)
    own = Candidate("own", tuple(float(i == adapter.own_layer) for i in range(adapter.vision_layers + 1)), 1.0)
    pruning = Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3)))
    setting = Setting("random", pruning, dict.fromkeys([s.label for s in bench.samples], own))
    entrants = [fastv("6"), drawn(setting, "6")]
    one, two = (
        prefill_costs(bench.model, bench.processor, bench.prompter, entrants, bench.samples[:1], rows)
        for rows in (1, 4)
    )
    assert all(of_two.peak_bytes > of_one.peak_bytes for of_one, of_two in zip(one, two, strict=True))


def test_a_torn_last_line_is_dropped_and_damage_refused(tmp_path):
    answered = Answered("two", 1.0, 6.0, 10.0)
    with AnswerJournal(tmp_path, IDENTITY) as journal:
        journal.add(ASKED, answered)
    with journal.path.open("ab") as file:
        file.write(b'{"asked": {"meth')
    with AnswerJournal(tmp_path, IDENTITY) as journal:
        assert journal.get(ASKED) == answered
        assert len(journal) == 1
        journal.add(replace(ASKED, seed=1), answered)
    with AnswerJournal(tmp_path, {"model": "another"}) as other:
        assert len(other) == 0
    with AnswerJournal(tmp_path, IDENTITY), pytest.raises(InputError, match="another process is writing to"):
        AnswerJournal(tmp_path, IDENTITY)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(InputError, match=r"line 2 of .* is damaged"):
        AnswerJournal(tmp_path, IDENTITY)


@pytest.mark.parametrize("kept", [True, False])
def test_knobs_are_solved_once(tmp_path, kept):
    place = tmp_path / "new" if kept else None
    solved = SolvedKnobs(place, IDENTITY)
    solved.add("fastv", "6", {"refused": "no"})
    solved.add("fastv", "8", {"k": 1})
    assert solved.get("fastv", "8") == {"k": 1}
    again = SolvedKnobs(place, IDENTITY)
    assert again.get("fastv", "6") == ({"refused": "no"} if kept else None)
    assert SolvedKnobs(place, {"model": "another"}).get("fastv", "6") is None


def test_what_was_called_random_before_the_decoder_is_read_under_its_new_name(tmp_path):
    answered = Answered("two", 1.0, 6.0, 10.0)
    before = Entrant("random-input", "6", nothing, {"keep": "6"}).asked(Sample("one", "?", "one.png"), 3)
    staged = Entrant("random", "6", nothing, {"starts": (1, 2)}).asked(Sample("one", "?", "one.png"), 3)
    with AnswerJournal(tmp_path, IDENTITY) as journal:
        journal.add(replace(before, method="random"), answered)
        journal.add(staged, answered)
    with AnswerJournal(tmp_path, IDENTITY) as journal:
        assert (journal.get(before), journal.get(staged), len(journal)) == (answered, answered, 2)


def test_random_pruning_draws_at_the_stages_as_an_evaluation_does(bench):
    schedule = Schedule(16, 8, (1, 2), (8, 4))
    own = Candidate("own", tuple(float(layer == 3) for layer in range(5)), 1.0)
    default = Setting("default", Pruning(schedule), dict.fromkeys({s.label for s in bench.samples}, own))
    entrant = drawn(default, "6")
    assert entrant.knobs == {"starts": (1, 2), "counts": (8, 4)}
    kept = {}
    for seed in entrant.seeds:
        with entrant.apply(bench.model, bench.samples[0], seed) as run, torch.no_grad():
            bench.model(**encoded(bench.model, bench.processor, bench.prompter, bench.samples[0]))
        kept[seed] = [stage.kept(0) for stage in run.stats.stages]
        assert list(map(len, kept[seed])) == [8, 4]
    candidate = replace(own, drawn=1)
    with default.pruning.applied(bench.model, bench.samples[0], [candidate]) as run, torch.no_grad():
        bench.model(**encoded(bench.model, bench.processor, bench.prompter, bench.samples[0]))
    assert [stage.kept(0) for stage in run.stats.stages] == kept[1]
    assert len({str(of) for of in kept.values()}) == len(entrant.seeds)


def test_answers_may_be_kept_in_memory_only():
    with AnswerJournal(None, IDENTITY) as journal:
        journal.add(ASKED, Answered("two", 1.0, 6.0, 10.0))
        assert (len(journal), journal.path) == (1, None)
