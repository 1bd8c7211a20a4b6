"""Tasks of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval), as the installed one reads them.

The task's own YAML and functions say what is asked (``doc_to_text``, ``lmms_eval_specific_kwargs``), shown
(``doc_to_visual``), right (``doc_to_target``) and offered (``doc_to_choice``), and where the dataset is.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.media import is_video
from clasp_calib.common.progress import note_once
from clasp_calib.common.sample_readers import SampleReader, SampleSource
from clasp_calib.readers.checked_cells import Record, passed_on

MODEL = "clasp"
"""Whose settings of a task are taken, where a task has some for each model."""
AROUND = ("pre_prompt", "post_prompt")
METRICS = {
    **{"anls": "anls", "relaxed_overall": "relaxed", "exact_match": "exact_match"},
    **{"pope_accuracy": "pope", "mme_perception_score": "mme", "mme_cognition_score": "mme"},
}
"""Metric of lmms-eval -> ours."""
VQA = {"textvqa": "textvqa", "vqav2": "vqa", "ok_vqa": "vqa", "vizwiz_vqa": "vqa"}
"""Beginning of a task's name -> our metric, of tasks that call the VQA accuracy ``exact_match``."""
_OF_TASK = {**VQA, **dict.fromkeys(("coco_cap", "coco2014_cap", "coco2017_cap"), "rouge_l")}
_OPTION = re.compile(r"(?m)^\(?B[.):]")


class LmmsTaskReader(SampleReader):
    """``TASK`` or the path of a task's YAML, with ``:SPLIT`` behind it for another split than the one it scores."""

    about = "a task of lmms-eval, which has to be installed"
    splits = True

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any]]:
        """See `SampleReader`."""
        name, _, split = source.text.partition(":")
        with _named(name, "be loaded"):
            task = _task(name)
        split = source.split or split or task.config.test_split or task.config.validation_split
        if split not in task.dataset:
            raise InputError(f"the task {name} has no split {split!r}; it has {', '.join(task.dataset)}")
        metrics = [str(of["metric"]) for of in task.config.metric_list or ()]
        for number, doc in enumerate(task.dataset[split]):
            where = f"{name}:{split}: document {number}"
            with _named(where, "be asked as its task does it"):
                yield _row(task, Record(doc, where), number, metrics)


def _row(task: Any, doc: Record, number: int, metrics: list[str]) -> dict[str, Any]:
    # Functions of tasks are written for a dict, and copy it or write into it.
    question, bare = task.doc_to_text(dict(doc)), _bare(task, doc)
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{doc.where}: doc_to_text makes {question!r:.100} of it; expected a text")
    choices = [str(choice) for choice in task.doc_to_choice(dict(doc))] if task.config.doc_to_choice is not None else []
    answers = _answers(_target(task, doc), choices, doc.where)
    return {
        "id": str(number),
        "question": question,
        "bare_question": bare or question,
        **_shown(task.doc_to_visual(dict(doc)), doc.where),
        "answers": answers,
        "metric": _metric(task.config.task, metrics, question, answers),
        **({"choices": choices} if choices else {}),
        **passed_on(doc, "bare_question", "choices"),
    }


def _bare(task: Any, doc: Record) -> str | None:
    """The question without what the task puts around it."""
    made, around = task.config.doc_to_text, task.lmms_eval_specific_kwargs
    if not callable(made) or not isinstance(around, dict):
        return None
    blank = {name: "" if isinstance(of, str) and name.endswith(AROUND) else of for name, of in around.items()}
    text = made(dict(doc), blank)
    return text.strip() if isinstance(text, str) else None


def _target(task: Any, doc: Record) -> Any:
    """What is right: of tasks of VQA the answers of all annotators, which their YAMLs do not name."""
    if task.config.task.startswith(tuple(VQA)) and doc.get("answers"):
        given = doc["answers"]
        return [one["answer"] if isinstance(one, Mapping) and "answer" in one else one for one in given]
    target, named = task.doc_to_target(dict(doc)), task.config.doc_to_target
    if isinstance(named, str) and target == named and named not in doc:
        raise InputError(
            f"{doc.where}: doc_to_target is {named!r}, and the dataset has no such column (it has {', '.join(doc)}), "
            "so that each answer would be that word; name a column of answers in a YAML file of your own"
        )
    return target


def _answers(target: Any, choices: list[str], where: str) -> list[str]:
    """Accepted answers; a number is the place of a choice where there are choices."""
    found = []
    for one in target if isinstance(target, list | tuple) else [target]:
        if isinstance(one, int) and not isinstance(one, bool) and choices:
            if not 0 <= one < len(choices):
                raise InputError(f"{where}: doc_to_target gives the choice {one} of {len(choices)}")
            found.append(choices[one])
        elif isinstance(one, str | int | float):
            found.append(str(one))
        elif one is not None:
            raise InputError(f"{where}: doc_to_target gives {one!r:.100}; expected texts, or the place of a choice")
    return [answer for answer in found if answer]


def _shown(visuals: Any, where: str) -> dict[str, Any]:
    from PIL import Image

    every = [] if visuals is None else list(visuals) if isinstance(visuals, list | tuple) else [visuals]
    for one in every:
        if not isinstance(one, Image.Image | str):
            raise InputError(f"{where}: doc_to_visual gives a {type(one).__name__}; expected pictures or paths")
    if len(every) == 1:
        return {"video" if isinstance(every[0], str) and is_video(every[0]) else "image": every[0]}
    return {"images": every} if every else {"image": None}


def _metric(task: str, metrics: list[str], question: str, answers: list[str]) -> str:
    of_task = next((ours for begin, ours in _OF_TASK.items() if task.startswith(begin)), None)
    ours = [of_task] if of_task else [METRICS[name] for name in metrics if name in METRICS]
    if not ours:
        note_once(
            f"the task {task} is scored by {', '.join(metrics) or 'functions of its own'}, which is not known here; "
            "its samples are scored by exact_match: add a column 'metric', or score with lmms-eval itself"
        )
    lettered = bool(answers) and all(re.fullmatch("[A-Z]", answer) for answer in answers)
    if lettered and _OPTION.search(question) and ours in ([], ["exact_match"]):
        return "multiple_choice"
    return ours[0] if ours else "exact_match"


def _task(name: str) -> Any:
    """A task by name, or by the path of its YAML."""
    try:
        from lmms_eval.tasks import TaskManager
        from lmms_eval.utils import load_yaml_config
    except ImportError as error:
        raise InputError(
            f"lmms:{name} needs lmms-eval, and it cannot be imported ({error}); "
            "pip install 'clasp-calib[lmms-eval]', or name the task's dataset: hf:ORG/NAME"
        ) from error
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"there is no task {name}; expected the path of a YAML file, or the name of a task")
        manager = TaskManager(include_path=str(path.parent), include_defaults=False, model_name=MODEL)
        name = str(load_yaml_config(str(path), mode="simple").get("task"))
    else:
        manager = TaskManager(model_name=MODEL)
    if name not in manager.all_subtasks:
        near = [of for of in manager.all_subtasks if name in of] or get_close_matches(name, manager.all_subtasks)
        group = " (it is a group of tasks)" if name in manager.all_tasks else ""
        told = f"; there are {', '.join(near[:8])}" if near else ""
        raise InputError(
            f"lmms-eval has no task {name!r}{group}{told}; `lmms-eval tasks` lists them, and a YAML file of your own "
            "is given by its path"
        )
    (task,) = manager.load_task_or_group([name]).values()
    return task


@contextmanager
def _named(what: str, done: str) -> Iterator[None]:
    """Name what fails in lmms-eval or a task: it may be anything, for instance a dataset that cannot be fetched."""
    try:
        yield
    except ClaspError:
        raise
    except Exception as error:
        # tenacity, by which lmms-eval tries again, hides the cause.
        cause = getattr(getattr(error, "last_attempt", None), "exception", lambda: None)() or error
        raise InputError(f"{what} cannot {done} ({type(cause).__name__}: {str(cause).strip()[:300]})") from error
