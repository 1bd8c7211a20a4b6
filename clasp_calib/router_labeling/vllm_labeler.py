"""Labels by vLLM in this process: no server, no network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import LabelerError
from clasp_calib.common.hashing import sha256_file, sha256_json
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.prompt import longest_answer, messages, model_fingerprint, schema
from clasp_calib.router_labeling.replies import (
    ATTEMPTS,
    RETRY_TEMPERATURE,
    BadReplyError,
    Token,
    no_guess,
    read_guess,
)
from clasp_calib.router_labeling.serving import DEFAULT_MODEL, STRUCTURED_OUTPUTS
from clasp_calib.router_labeling.taxonomy import Taxonomy


@dataclass(frozen=True)
class VLLMLabeler:
    """Asks ``vllm.LLM.chat`` with an enforced JSON schema and thinking disabled. The engine starts when it is needed.

    Attributes:
        model: directory or Hub id of a chat model.
        revision: commit or tag of the Hub id.
        chunk: questions in one call of ``chat``. What is answered is kept after each call, so this is what a kill
            can cost; smaller chunks leave the engine idle more often.
        engine: further arguments of ``vllm.LLM``.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    chunk: int = 512
    engine: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def llm(self) -> Any:
        """The ``vllm.LLM``.

        Raises:
            LabelerError: vLLM is not installed, or cannot load the model.
        """
        settings: dict[str, Any] = {
            "max_model_len": 4096,
            "generation_config": "vllm",
            "structured_outputs_config": STRUCTURED_OUTPUTS,
            **self.engine,
        }
        try:
            return _vllm().LLM(model=self.model, revision=self.revision, **settings)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise LabelerError(
                f"vLLM cannot load the model {self.model!r} ({error}); give a directory or a Hub id of a chat model "
                "with --labeler-model, and settings that fit this machine with --engine"
            ) from error

    def fingerprint(self, scheme: Scheme) -> str:
        """JSON text: the model, its revision, vLLM's version, digests of prompt and taxonomy.

        A directory's revision is the hash of its configuration and of its weight files' names and sizes.
        """
        version: str = _vllm().__version__
        revision = self.revision or _directory_revision(Path(self.model))
        return model_fingerprint("vllm", scheme.taxonomy, vllm=version, model=self.model, revision=revision)

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        """One (index, guess) for each question, chunk by chunk.

        Raises:
            LabelerError: the engine cannot start, or died.
        """
        for begin in range(0, len(questions), self.chunk):
            chunk = dict(enumerate(questions[begin : begin + self.chunk], start=begin))
            for attempt in range(ATTEMPTS):
                reasons = {}
                asked, chunk = chunk, {}
                for index, outcome in self._chat(asked, scheme.taxonomy, RETRY_TEMPERATURE if attempt else 0.0):
                    if isinstance(outcome, Guess):
                        yield index, outcome
                    else:
                        chunk[index], reasons[index] = asked[index], outcome
                if not chunk:
                    break
            for index in chunk:
                yield index, no_guess(f"no label after {ATTEMPTS} attempts: {reasons[index]}", scheme.taxonomy)

    def _chat(self, asked: dict[int, str], taxonomy: Taxonomy, temperature: float) -> Iterator[tuple[int, Guess | str]]:
        """(index, guess or the reason why there is none) for each question."""
        llm = self.llm
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        limit = longest_answer(taxonomy)
        encode = llm.get_tokenizer().encode
        *shared, _ = messages(taxonomy, "")
        taken = sum(len(encode(message["content"])) for message in shared)
        # 16 tokens are more than a chat template adds around a message.
        room = int(llm.model_config.max_model_len) - limit - taken - 16 * (len(shared) + 1)
        conversations = {}
        for index, question in asked.items():
            *shared, text = messages(taxonomy, question)
            # Tokens are counted only where bytes, which are never fewer, do not settle it.
            if len(text["content"].encode()) <= room or len(encode(text["content"])) <= room:
                conversations[index] = [*shared, text]
            else:
                yield index, "the question does not fit into the model's context"
        if not conversations:
            return
        sampling = SamplingParams(
            temperature=temperature,
            max_tokens=limit,
            logprobs=0,
            structured_outputs=StructuredOutputsParams(json=schema(taxonomy)),
        )
        try:
            outputs = llm.chat(
                list(conversations.values()),
                sampling,
                chat_template_kwargs={"enable_thinking": False},
                use_tqdm=False,
            )
        except Exception as error:  # vLLM's engine dies with errors of many types, none of which is recoverable here
            raise LabelerError(
                f"vLLM's engine died ({type(error).__name__}: {error}); what it answered so far is kept: "
                "give the same command again, which goes on from there"
            ) from error
        for index, output in zip(conversations, outputs, strict=True):
            answer = output.outputs[0]
            try:
                yield index, read_guess(answer.text, answer.finish_reason, _tokens(answer), taxonomy)
            except BadReplyError as error:
                yield index, str(error)


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise LabelerError(
            f"labelling with vLLM needs vLLM, which cannot be imported here ({error}); pip install "
            "'clasp-calib[vllm]', or label with another --backend"
        ) from error
    return vllm


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
