"""Which class the prompt of a request is of, where nobody says it."""

from collections.abc import Sequence
from typing import Any

from vllm.logger import init_logger

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.common.errors import ArtifactError
from clasp_calib.router_labeling.language import is_not_english
from clasp_calib.runtime.routing import NOT_ENGLISH, router_of
from clasp_calib.serving.last_question import LastQuestion
from clasp_calib.serving.served import ServedArtifact

logger = init_logger("vllm.clasp_calib")


class PromptRouter:
    """Finds the last question of a prompt, and its class.

    Args:
        served: whose artifact is read again here, for its router.
        processor: of the model, transformers' own.
        tokenizer: of the model.

    Raises:
        ArtifactError: the artifact is not where it was, or another one is there.
    """

    def __init__(self, served: ServedArtifact, processor: Any, tokenizer: Any) -> None:
        self._artifact = read_artifact(served.place)
        if self._artifact.manifest.id != served.digest:
            raise ArtifactError(
                f"{served.place} holds another artifact than when the server was started; start it again, and give "
                "each artifact that is served a directory of its own"
            )
        marks = [*tokenizer.all_special_tokens, getattr(processor, "image_token", "")]
        marks += [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
        prompt = self._artifact.manifest.prompt
        for template in _templates(processor, tokenizer):
            try:
                self._question = LastQuestion.of(prompt, template, marks)
                break
            except Exception as error:  # Templates are programs, and raise what they like.
                logger.debug("a chat template cannot be followed: %s", error)
        else:
            self._question = LastQuestion.of(prompt, None, marks)
        self._tokenizer = tokenizer

    def __call__(self, prompt: Sequence[int] | str) -> tuple[str, str, float | None]:
        """The class, who named it (``router``, ``packaged router`` or ``only class``), and the router's confidence."""
        text = prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)
        question, follows = self._question(text)
        if not follows:
            logger.warning_once(
                "a prompt follows neither the model's chat template nor that of the calibration, so that all of its "
                "text decides its class; name the class in the request, or set CLASP_CLASS"
            )
        if (router := router_of(self._artifact)) is None:
            return self._artifact.classes[0], "only class", None
        decision = router.route(question)
        if self._artifact.router:
            return decision.label, "router", decision.confidence
        if is_not_english(question):
            logger.warning_once(NOT_ENGLISH)
        return decision.label, "packaged router", decision.confidence


def _templates(processor: Any, tokenizer: Any) -> list[Any]:
    """Ways to render messages: of the processor or the tokenizer, with contents as lists of parts or as text."""

    def rendering(own: Any, plain: bool) -> Any:
        def render(messages: list[dict[str, Any]]) -> str:
            if plain:
                messages = [{**message, "content": message["content"][0]["text"]} for message in messages]
            text: str = own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return text

        return render

    owners = [one for one in (processor, tokenizer) if getattr(one, "chat_template", None)][:1]
    return [rendering(own, plain) for own in owners for plain in (False, True)]
