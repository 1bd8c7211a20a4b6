"""A work directory of a training, which keeps what its stages made so that none is made twice.

Stages of a decoder keep checkpoints and go on from the last one, with the result of an uninterrupted run.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import track
from tools.reference.training import decoder as decoding
from tools.reference.training.batches import Batch
from tools.reference.training.optimizer import MasterAdamW
from tools.reference.training.stepwise import Prepared, Steps


class Workshop:
    """What every training does with its work directory.

    Args:
        recipe: what is trained, as the directory remembers it.
        work: where the stages are kept.
        device: trains.
        workers: processes that draw pictures and questions; with none this process does.
        checkpoint: steps of a decoder stage after which it is kept.

    Raises:
        InputError: the directory holds stages of another recipe.
    """

    def __init__(self, recipe: Mapping[str, Any], work: Path, device: str, workers: int, checkpoint: int):
        self.work, self._device, self._workers, self._checkpoint = work, torch.device(device), workers, checkpoint
        work.mkdir(parents=True, exist_ok=True)
        mark, wanted = work / "recipe.json", json.dumps(recipe, sort_keys=True)
        if mark.exists() and mark.read_text(encoding="utf-8") != wanted:
            raise InputError(f"{work} holds the stages of another recipe; give another --work, or remove it")
        mark.write_text(wanted, encoding="utf-8")
        self._begun = time.monotonic()

    def log(self, stage: str, **event: Any) -> None:
        """One line in ``log.jsonl``, with the device and the seconds of this sitting so far."""
        place = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        event |= {"device": place, "seconds": round(time.monotonic() - self._begun, 1)}
        with (self.work / "log.jsonl").open("a") as file:
            file.write(json.dumps({"stage": stage, **event}) + "\n")

    def over(self, steps: Steps[Prepared], numbers: range) -> Iterator[Prepared]:
        """Steps on the device, drawn by the workers."""
        return steps.over(numbers, self._device, self._workers)

    def follow(self, stage: str, steps: Iterator[tuple[int, torch.Tensor]], total: int) -> None:
        """Go through the steps of a stage without checkpoints, and log how the loss falls."""
        mean = None
        for step, loss in track(steps, stage, total):
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            if step % 50 == 0 or step == total - 1:
                self.log(stage, step=step, loss=round(mean.item(), 4))

    def load(self, path: Path) -> Any:
        """What `save` kept, on the device."""
        return torch.load(path, weights_only=True, map_location=self._device)

    def finished(self, stage: str, steps: int) -> bool:
        """Whether a decoder stage has come to its end."""
        path = self.work / f"{stage}.pt"
        return path.exists() and bool(self.load(path)["step"] == steps)

    def restore(self, stage: str, parts: Mapping[str, torch.nn.Module]) -> dict[str, Any]:
        """Give parts the weights of a stage's last checkpoint, and return that."""
        saved: dict[str, Any] = self.load(self.work / f"{stage}.pt")
        for name, module in parts.items():
            module.load_state_dict(saved[name])
        return saved

    def train(
        self,
        stage: str,
        parts: Mapping[str, torch.nn.Module],
        batches: Steps[Batch],
        steps: int,
        rate: float,
        train: Callable[[MasterAdamW, Iterator[Batch], range], Iterator[tuple[int, decoding.Losses]]],
        watch: Callable[[], None],
    ) -> None:
        """Train a decoder stage from its last checkpoint to its end, and log how good it is before that is kept.

        Args:
            stage: its name.
            parts: what is trained, by name.
            batches: what it is trained on.
            steps: of the whole stage.
            rate: of learning.
            train: gives the losses of each step.
            watch: logs how good the parts are.
        """
        path = self.work / f"{stage}.pt"
        optimizer = MasterAdamW([p for module in parts.values() for p in module.parameters()], rate, steps)
        begin = 0
        if path.exists():
            saved = self.restore(stage, parts)
            begin = saved["step"]
            if begin < steps:
                optimizer.load_state_dict(saved["optimizer"])
        left = range(begin, steps)
        mean = None
        for step, losses in track(train(optimizer, self.over(batches, left), left), stage, len(left)):
            both = torch.stack(losses)
            mean = both if mean is None else 0.98 * mean + 0.02 * both
            if step % 50 == 0 or step == steps - 1:
                answer, attention = mean.tolist()
                self.log(stage, step=step, loss=round(answer, 4), attention=round(attention, 4))
            ended = step == steps - 1
            if ended:
                watch()
            if ended or (step + 1) % self._checkpoint == 0:
                state: dict[str, Any] = {name: module.state_dict() for name, module in parts.items()}
                save(state | {"step": step + 1} | ({} if ended else {"optimizer": optimizer.state_dict()}), path)


def save(state: dict[str, Any], path: Path) -> None:
    """Keep a stage, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)
