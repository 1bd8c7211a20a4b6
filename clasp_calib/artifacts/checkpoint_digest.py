"""Which weights a model has: a digest of the checkpoint that it was loaded from, or else of what is in memory.

The digest of a checkpoint is that of names, shapes, dtypes and evenly spaced raw values of its tensors, as the files
hold them. So it is the same in transformers and in vLLM, in whatever dtype the model is loaded and however its
checkpoint is divided into files, and takes some kilobytes a tensor to read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from clasp_calib.common.errors import ModelError
from clasp_calib.common.fields import Hash, Line, Strict
from clasp_calib.common.given_files import read_given

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SPOTS, RUN = 16, 64
"""Of a larger tensor 16 runs of 64 values are read. Our choice: training changes nearly all of a matrix."""
LOADED = 256
"""Values that are looked at in each tensor in memory."""
_HEADER_BYTES = 100_000_000
"""Of safetensors, which sets this limit itself."""
_INDEX_BYTES = 64 << 20


class Checkpoint(Strict):
    """A digest of weights. Digests of different kinds or dtypes say nothing of each other."""

    kind: Literal["files", "memory"]
    """``files`` of a checkpoint; ``memory`` where a model was made or changed after loading."""
    digest: Hash
    dtype: Line | None = None
    """Of a model in memory."""

    def __str__(self) -> str:
        return f"{self.digest[:16]} ({self.kind if self.dtype is None else f'{self.kind}, {self.dtype}'})"

    def comparable(self, other: "Checkpoint") -> bool:
        """Whether different digests mean different weights."""
        return (self.kind, self.dtype) == (other.kind, other.dtype)


class _Stored(NamedTuple):
    """A tensor in a file, and the raw values of it that are looked at."""

    dtype: str
    shape: tuple[int, ...]
    sample: bytes


def files_digest(place: Path) -> Checkpoint:
    """The digest of a checkpoint's files, as every server of it finds it.

    Args:
        place: the model's directory, or its snapshot in the Hub's cache.

    Raises:
        ModelError: it holds no checkpoint, or one that cannot be read.
    """
    return _of_files(_stored(place))


def checkpoint_of(model: "nn.Module") -> Checkpoint:
    """The digest of the checkpoint that a transformers model was loaded from, if it still has its values.

    Otherwise, or if the files are not at hand, it is that of the values in memory. A model is looked at again only if a
    parameter was replaced, changed by an operation that torch counts, or has other values in a few places.
    """
    return _seen(model)[0]


def revision_of(model: "nn.Module") -> str | None:
    """The commit on the Hub that a model was loaded from; ``None`` if it came from elsewhere, or was changed since."""
    return _seen(model)[1]


def weights_digest(model: "nn.Module") -> str:
    """Hex sha256 of names, shapes, dtypes and evenly spaced values of all tensors of a model in memory."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        if not tensor.is_meta:
            flat = tensor.detach().reshape(-1)
            some = flat[:: max(1, len(flat) // LOADED)].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().data)
    return digest.hexdigest()


_GLANCED = 8
"""Values of each tensor that show changes which torch does not count, as of ``.data``, by which adapters are merged."""
_Seen = tuple[Checkpoint, str | None]
_KNOWN: "WeakKeyDictionary[nn.Module, tuple[Any, _Seen]]" = WeakKeyDictionary()


def _seen(model: "nn.Module") -> _Seen:
    import torch

    counted = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters())
    apart = [p.detach().reshape(-1) for p in model.parameters() if not p.is_meta]
    some = [flat[:: max(1, len(flat) // _GLANCED)].to(apart[0].device, torch.float32) for flat in apart]
    state = counted, torch.cat(some).cpu().numpy().tobytes() if some else b""
    known = _KNOWN.get(model)
    if known is None or known[0] != state:
        _KNOWN[model] = known = (state, _look(model))
    return known[1]


def _look(model: "nn.Module") -> _Seen:
    # PEFT keeps what it adapts as base_layer, with weights beside it that are in no file here.
    adapted = any(hasattr(part, "base_layer") for part in model.modules())
    for place in [] if adapted else _places(model):
        try:
            stored = _stored(place)
        except ModelError:
            continue
        if _holds(stored, model):
            return _of_files(stored), place.name if place.parent.name == "snapshots" else None
    dtype = str(model.dtype).removeprefix("torch.")
    return Checkpoint(kind="memory", digest=weights_digest(model), dtype=dtype), None


def _places(model: "nn.Module") -> list[Path]:
    """Where the files of a model may lie: its directory, or the snapshots of its repository in the Hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    config: Any = model.config
    name = str(getattr(config, "_name_or_path", None) or "")
    if not name or Path(name).is_dir():
        return [Path(name)] if name else []
    # A model does not say which revision it was loaded from: the values will.
    snapshots = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots")
    return sorted(snapshots.iterdir()) if snapshots.is_dir() else []


def _of_files(stored: Mapping[str, _Stored]) -> Checkpoint:
    digest = hashlib.sha256()
    for name, tensor in sorted(stored.items()):
        digest.update(f"{json.dumps(name)} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.sample)
    return Checkpoint(kind="files", digest=digest.hexdigest())


def _stored(place: Path) -> dict[str, _Stored]:
    """The tensors of the files that transformers would load, by name."""
    try:
        for single, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _pickled)):
            if (place / single).exists():
                return dict(read(place / single))
            index = place / f"{single}.index.json"
            if index.exists():
                files = {*json.loads(read_given(index, _INDEX_BYTES, "index", ModelError))["weight_map"].values()}
                shards = [place / name for name in sorted(files) if Path(name).name == name]
                return {name: tensor for shard in shards for name, tensor in read(shard)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ModelError(f"the checkpoint in {place} cannot be read ({error}); fetch or save it again") from error
    raise ModelError(f"{place} holds no checkpoint; expected model.safetensors or pytorch_model.bin, or their index")


def _safetensors(path: Path) -> Iterator[tuple[str, _Stored]]:
    """See https://huggingface.co/docs/safetensors: a length, that many bytes of JSON, and the values."""
    with path.open("rb", buffering=0) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _HEADER_BYTES:
            raise ValueError(f"its header has {size} bytes")
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for name, of in header.items():
            begin, end = of["data_offsets"]
            count, shape = prod(of["shape"]), tuple(of["shape"])
            # Several values of some dtypes share a byte.
            values, width = (count, (end - begin) // count) if count and not (end - begin) % count else (end - begin, 1)
            sample = b""
            for first, last in _runs(values):
                file.seek(8 + size + begin + first * width)
                sample += file.read((last - first) * width)
            yield name, _Stored(of["dtype"], shape, sample)


def _pickled(path: Path) -> Iterator[tuple[str, _Stored]]:
    """What ``torch.save`` wrote, unpickled as torch's own list of harmless types allows."""
    import torch

    names = {torch_dtype: name for name, torch_dtype in _floats().items()}
    for name, tensor in torch.load(path, map_location="cpu", mmap=True, weights_only=True).items():
        dtype = names.get(tensor.dtype, str(tensor.dtype))
        yield name, _Stored(dtype, tuple(tensor.shape), _bytes(_sampled(tensor)))


def _holds(stored: Mapping[str, _Stored], model: "nn.Module") -> bool:
    """Whether a model's parameters have the files' values, cast: whatever the two call them.

    Only floating-point parameters are compared, of shapes that the files have: quantization and some architectures
    make others on loading.
    """
    import torch

    dtypes = _floats()
    raw: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in stored.values():
        if tensor.dtype in dtypes and tensor.sample:
            values = torch.frombuffer(bytearray(tensor.sample), dtype=dtypes[tensor.dtype])
            raw.setdefault(tensor.shape, []).append(values)
    cast: dict[tuple[tuple[int, ...], Any], set[bytes]] = {}
    compared = 0
    for parameter in model.parameters():
        shape, dtype = tuple(parameter.shape), parameter.dtype
        if shape not in raw or parameter.is_meta or not dtype.is_floating_point:
            continue
        if (shape, dtype) not in cast:
            cast[shape, dtype] = {_bytes(values.to(dtype)) for values in raw[shape]}
        if _bytes(_sampled(parameter)) not in cast[shape, dtype]:
            return False
        compared += 1
    return compared > 0


def _floats() -> "dict[str, torch.dtype]":
    """The dtypes whose values are compared, as safetensors calls them."""
    import torch

    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def _sampled(tensor: "Tensor") -> "Tensor":
    import torch

    flat = tensor.detach().reshape(-1)
    return torch.cat([flat[first:last] for first, last in _runs(len(flat))]).cpu()


def _bytes(values: "Tensor") -> bytes:
    import torch

    return values.contiguous().view(torch.uint8).numpy().tobytes()


def _runs(values: int) -> Iterator[tuple[int, int]]:
    """Begins and ends of the values that are looked at in a tensor of so many."""
    if values <= SPOTS * RUN:
        yield 0, values
    else:
        for spot in range(SPOTS):
            begin = spot * (values - RUN) // (SPOTS - 1)
            yield begin, begin + RUN
