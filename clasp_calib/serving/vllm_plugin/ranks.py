"""Where the heads of a tower are divided among the ranks of a server."""

from torch import Tensor
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather
from vllm.model_executor.models.vision import is_vit_use_data_parallel


def all_heads(part_BHTd: Tensor) -> Tensor:
    """Queries or keys of all heads, from those of this rank.

    Ranks that saw their own heads only would keep other tokens, and the decoder would add up what does not belong
    together.
    """
    if get_tensor_model_parallel_world_size() == 1 or is_vit_use_data_parallel():
        return part_BHTd
    whole_BHTd: Tensor = tensor_model_parallel_all_gather(part_BHTd.contiguous(), dim=1)
    return whole_BHTd
