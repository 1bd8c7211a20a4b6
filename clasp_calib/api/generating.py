"""One question about one picture or video, answered with pruned visual tokens."""

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.settings import check_count, check_kind

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.scoring.prompting import Prompter
    from clasp_calib.common.pruning_options import PruningOptions
    from clasp_calib.runtime.answering import Answer
    from clasp_calib.runtime.stats import Pruned

AUTO = "auto"


@dataclass(frozen=True)
class GenerationOptions:
    """How to answer.

    Attributes:
        class_: class of the question, or ``auto``: the artifact's only one, or what its router says. The packaged
            router says it where the artifact has none and the packaged classes.
        max_new_tokens: longest answer.
        compare: answer without pruning too.
        strict: refuse a model that does not have the weights of the artifact's calibration, of which there is a warning
            otherwise.
        checkpoint: accept a model with other weights by their digest, as the warning names it.
        template: of the prompt, with ``<image>`` and ``{question}``; by default the artifact's, or without an artifact
            the model's own chat template.
        profile: where tokens are dropped without an artifact, see
            `clasp_calib.common.pruning_options.PruningOptions`; an artifact brings its own.

    Raises:
        InputError: ``max_new_tokens`` below 1.
    """

    class_: str = AUTO
    max_new_tokens: int = 64
    compare: bool = False
    strict: bool = False
    checkpoint: str | None = None
    template: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        """Refuse an answer of nothing."""
        check_kind("class_", self.class_, str, "the name of one class, or 'auto'")
        check_count("max_new_tokens", self.max_new_tokens, 1)


@dataclass(frozen=True)
class Generated:
    """A pruned answer, and what pruning did."""

    answer: "Answer"
    """The answer with pruning, and what each stage kept."""
    unpruned: "Answer | None"
    """The answer without pruning, if it was asked for."""
    class_: str
    """Class that the question was answered as."""
    budget: str
    """Budget that it was answered at."""
    picture: Any = field(repr=False)
    """As the tower saw it, cropped and all; ``None`` of a video or several pictures."""
    grid: tuple[int, int] | None = field(repr=False)
    """Rows and columns of visual tokens; ``None`` where they are no grid over one picture, as those of tiles."""

    @property
    def text(self) -> str:
        """What the pruned model said."""
        return self.answer.text

    def draw(self, path: str | Path) -> None:
        """Draw the kept tokens over the picture, a panel a stage: relevance blue, coverage red.

        Raises:
            InputError: nothing was pruned, the tokens are no grid over a picture, or the file cannot be written.
        """
        from clasp_calib.report.overlay import Panel, draw_overlay

        if self.answer.stats is None:
            raise InputError("a budget of 100% prunes nothing, so there is nothing to draw; give a smaller budget")
        if self.grid is None:
            raise InputError(
                "the visual tokens of tiles, several pictures or a video are no grid over a picture, so the kept ones "
                "cannot be drawn; drop --overlay"
            )
        panels = [
            Panel(
                f"from layer {stage.start}: {len(stage.kept(0))} kept, "
                f"{len(stage.pivots(0))} for relevance, {len(stage.medoids(0))} for coverage",
                stage.pivots(0),
                stage.medoids(0),
            )
            for stage in self.answer.stats.stages
        ]
        try:
            draw_overlay(self.picture, self.grid, panels, Path(path))
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot write the overlay to {path} ({error}); give a path such as overlay.png"
            ) from error


def generate(
    model: Any,
    processor: Any,
    image: Any,
    question: str,
    *,
    artifact: "Artifact | Path | str | None" = None,
    budget: str | int | None = None,
    options: GenerationOptions | None = None,
) -> Generated:
    """Answer a question about a picture or a video with pruned visual tokens.

    Args:
        model: the model that the artifact was calibrated for.
        processor: the model's.
        image: path of a picture or of a video, or a PIL picture, or a list of pictures.
        question: without template; ``<image>`` is the place of a picture, see `load_samples`.
        artifact: an artifact, its directory, or ``org/name@version``; without one the model's own layer is used, and
            every token is kept for its relevance.
        budget: of an artifact one of its own, by default its largest; without an artifact it must be given.
        options: how to answer.

    Raises:
        ArtifactError: the artifact cannot be read, is of another model, or lacks the budget or the class.
        BudgetError: the budget cannot be met.
        InputError: the picture cannot be read, there is neither artifact nor budget, the template is not the
            artifact's, or the class is ``auto`` and the artifact has classes of its own and no router.
        ModelError: the model cannot be pruned, the processor is not its own or makes other tokens of several pictures
            than of each alone, or there is no template that shows all pictures.
    """
    from clasp_calib.api.resizing import shown_smaller
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.calib.percentages import check_percentages
    from clasp_calib.common.media import is_video
    from clasp_calib.common.samples import Sample
    from clasp_calib.runtime.answering import answer, seen_picture
    from clasp_calib.runtime.budgeting import largest_budget
    from clasp_calib.runtime.decoding import Greedy
    from clasp_calib.runtime.model_inputs import modality_of, several
    from clasp_calib.runtime.pictures import load_picture
    from clasp_calib.runtime.processor_check import check_processor, check_together
    from clasp_calib.runtime.routing import classes_of
    from clasp_calib.runtime.schedule import parse_budget

    check_processor(model, processor)
    options = options or GenerationOptions()
    known = artifact if artifact is None or isinstance(artifact, Artifact) else Artifact.load(artifact)
    if known is None and budget is None:
        raise InputError("there is neither an artifact nor a budget; give one of them")
    media = image if is_video(image) else [load_picture(one, processor) for one in several(image)]
    if len(several(media)) > 1:
        check_together(processor)
    if known is not None and budget is None:
        budget = largest_budget(known)
    name = parse_budget(str(budget)).name
    class_ = options.class_
    if known is None and class_ != AUTO:
        raise InputError(
            f"the class {class_!r} (--class) chooses among an artifact's settings, and there is no artifact; give one, "
            "or leave the class out"
        )
    if class_ == AUTO:
        (class_,) = classes_of([question], known)
    if known is None:
        asked = Sample("the question", question, image)
        check_percentages(model, processor, [asked], [parse_budget(str(budget))], _options(model, options).starts)
    modality = modality_of(model, processor, media)
    text = _prompter(model, processor, known, options.template).text(question, len(several(media)), modality)
    Greedy(model).say(known.manifest.decoding.generation if known else None)
    whole: Any = media
    share = known.downsample(name, class_) if known is not None else None
    if share:
        media = shown_smaller(model, processor, media, share)
    with undisturbed(model):
        pruning = _pruning(model, known, name, class_, options)
        pruned = answer(model, processor, media, text, options.max_new_tokens, pruning)
        full = answer(model, processor, whole, text, options.max_new_tokens) if options.compare else None
    alone = None if is_video(image) or len(media) > 1 else load_picture(media[0], processor)
    seen = seen_picture(pruned, processor, alone) if alone else None
    return Generated(pruned, full, class_, name, seen, _grid(model, pruned))


def _grid(model: Any, answered: "Answer") -> tuple[int, int] | None:
    from clasp_calib.runtime.adapters import adapter_for

    adapter = adapter_for(model)
    if adapter.pixel_names["image"] not in answered.inputs:
        return None
    with suppress(ModelError):
        return adapter.grid(answered.inputs)
    return None


def _options(model: Any, options: GenerationOptions) -> "PruningOptions":
    """What is pruned where, without an artifact."""
    from clasp_calib.common.pruning_options import PruningOptions
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.budgeting import default_options

    return default_options(adapter_for(model)) if options.profile is None else PruningOptions(profile=options.profile)


def _pruning(
    model: Any, artifact: "Artifact | None", budget: str, class_: str, options: GenerationOptions
) -> "AbstractContextManager[Pruned]":
    from clasp_calib.runtime.budgeting import schedule_for
    from clasp_calib.runtime.pruner import clasp, prune

    if artifact is None:
        how = _options(model, options)
        return prune(model, schedule=schedule_for(model, budget, how), rho=1.0, options=how)
    if options.profile is not None:
        raise InputError(
            f"the profile {options.profile!r} (--profile) is for pruning without an artifact, and this one has "
            f"its own, {artifact.manifest.profile!r}; leave the profile out"
        )
    artifact.rho(budget, class_)
    strict, accepted = options.strict, options.checkpoint
    return clasp(model, artifact, budget=budget, classes=class_, strict=strict, checkpoint=accepted, smaller=True)


def _prompter(model: Any, processor: Any, artifact: "Artifact | None", template: str | None) -> "Prompter":
    from clasp_calib.calib.scoring.prompting import Prompter

    own = artifact.manifest.prompt if artifact else template
    if template not in (None, own):
        raise InputError(
            f"the template {template!r} (--template) is not the one that the artifact was calibrated with, {own!r}; "
            "leave it out"
        )
    return Prompter(processor, model, own)
