"""Labels by vLLM's offline engine, in this process: no server, no network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import LabelerError
from clasp_calib.common.hashing import canonical_json, sha256_file, sha256_json
from clasp_calib.router_labeling.labelers import Guess
from clasp_calib.router_labeling.prompt import longest_answer, messages, prompt_digest, schema
from clasp_calib.router_labeling.replies import (
    ATTEMPTS,
    RETRY_TEMPERATURE,
    BadReplyError,
    Token,
    confidence,
    read_intent,
)
from clasp_calib.router_labeling.serving import STRUCTURED_OUTPUTS
from clasp_calib.router_labeling.taxonomy import Taxonomy


@dataclass
class OfflineLabeler:
    """Asks ``vllm.LLM.chat`` with an enforced JSON schema and thinking disabled.

    Attributes:
        model: directory or Hub id.
        taxonomy: the intents.
        revision: commit or tag of the Hub id.
        chunk: questions in one call of ``chat``. What is answered is kept after each call, so this is what a kill
            can cost; smaller chunks leave the engine idle more often.
        engine: further arguments of ``vllm.LLM``.
    """

    model: str
    taxonomy: Taxonomy
    revision: str | None = None
    chunk: int = 512
    engine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the engine.

        Raises:
            LabelerError: vLLM is not installed, or cannot load the model.
        """
        try:
            import vllm
        except ImportError as error:
            raise LabelerError(
                f"the backend 'vllm' needs vLLM, which cannot be imported here ({error}); pip install "
                "'clasp-calib[vllm]', or label with another --backend"
            ) from error
        settings: dict[str, Any] = {
            "max_model_len": 4096,
            "generation_config": "vllm",
            "structured_outputs_config": STRUCTURED_OUTPUTS,
            **self.engine,
        }
        try:
            self._llm: Any = vllm.LLM(model=self.model, revision=self.revision, **settings)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise LabelerError(
                f"vLLM cannot load the model {self.model!r} ({error}); give a directory or a Hub id of a chat model "
                "with --labeler-model, and settings that fit this machine with --engine"
            ) from error
        self._version: str = vllm.__version__

    @property
    def fingerprint(self) -> str:
        """JSON text: the model, its revision, vLLM's version, digests of prompt and taxonomy.

        A directory's revision is the hash of its configuration and of its weight files' names and sizes.
        """
        return canonical_json(
            {
                "labeler": "vllm",
                "vllm": self._version,
                "model": self.model,
                "revision": self.revision or _directory_revision(Path(self.model)),
                "prompt": prompt_digest(self.taxonomy),
                "taxonomy": self.taxonomy.digest,
            }
        )

    def ask(self, questions: Sequence[str]) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, chunk by chunk.

        Raises:
            LabelerError: the engine died.
        """
        for begin in range(0, len(questions), self.chunk):
            chunk = dict(enumerate(questions[begin : begin + self.chunk], start=begin))
            for attempt in range(ATTEMPTS):
                reasons = {}
                asked, chunk = chunk, {}
                for index, outcome in self._chat(asked, RETRY_TEMPERATURE if attempt else 0.0):
                    if isinstance(outcome, Guess):
                        yield index, outcome
                    else:
                        chunk[index], reasons[index] = asked[index], outcome
                if not chunk:
                    break
            for index in chunk:
                reason = f"no label after {ATTEMPTS} attempts: {reasons[index]}"
                yield index, Guess(self.taxonomy.default_intent, 0.0, reason, source="default")

    def _chat(self, asked: dict[int, str], temperature: float) -> Iterator[tuple[int, Guess | str]]:
        """(index, guess or the reason why there is none) for each question."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        limit = longest_answer(self.taxonomy)
        conversations = {index: messages(self.taxonomy, question) for index, question in asked.items()}
        too_long = {index for index, conversation in conversations.items() if not self._fits(conversation, limit)}
        yield from ((index, "the question does not fit into the model's context") for index in too_long)
        indices = [index for index in conversations if index not in too_long]
        if not indices:
            return
        sampling = SamplingParams(
            temperature=temperature,
            max_tokens=limit,
            logprobs=0,
            structured_outputs=StructuredOutputsParams(json=schema(self.taxonomy)),
        )
        try:
            outputs = self._llm.chat(
                [conversations[index] for index in indices],
                sampling,
                chat_template_kwargs={"enable_thinking": False},
                use_tqdm=False,
            )
        except Exception as error:  # vLLM's engine dies with errors of many types, none of which is recoverable here
            raise LabelerError(
                f"vLLM's engine died ({type(error).__name__}: {error}); what it answered so far is kept: "
                "give the same command again, which goes on from there"
            ) from error
        for index, output in zip(indices, outputs, strict=True):
            answer = output.outputs[0]
            try:
                intent = read_intent(answer.text, answer.finish_reason, self.taxonomy)
            except BadReplyError as error:
                yield index, str(error)
                continue
            yield index, Guess(intent, confidence(_tokens(answer), intent), answer.text)

    def _fits(self, conversation: list[dict[str, str]], limit: int) -> bool:
        """Whether prompt and answer fit; counts tokens only where bytes, which are never fewer, do not settle it."""
        room = int(self._llm.model_config.max_model_len) - limit
        shared, question = conversation[0]["content"], conversation[1]["content"]
        if not hasattr(self, "_shared_tokens"):
            tokenizer = self._llm.get_tokenizer()
            # 32 tokens are more than a chat template adds around two messages.
            self._shared_tokens = len(tokenizer.encode(shared)) + 32
        if self._shared_tokens + len(question.encode()) <= room:
            return True
        return bool(self._shared_tokens + len(self._llm.get_tokenizer().encode(question)) <= room)


def _tokens(answer: Any) -> list[Token]:
    return [
        Token(places[token].decoded_token or "", places[token].logprob)
        for token, places in zip(answer.token_ids, answer.logprobs or [], strict=False)
    ]


def _directory_revision(directory: Path) -> str | None:
    if not directory.is_dir():
        return None
    sizes = sorted((path.name, path.stat().st_size) for path in directory.glob("*.safetensors"))
    config = directory / "config.json"
    return sha256_json([sha256_file(config) if config.is_file() else None, sizes])
