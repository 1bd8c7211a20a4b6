"""vLLM's models import image processors of transformers that need torchvision, whose builds need CUDA.

What they import is never called here: transformers' other image processors are. On ``PYTHONPATH``, Python runs this
as it starts, in all of vLLM's processes.
"""

import sys
from types import ModuleType

NAMES = {
    "pixtral.image_processing_pixtral": ["_num_image_tokens"],
    "qwen2_vl.image_processing_qwen2_vl": ["smart_resize", "Qwen2VLImageProcessor"],
    "got_ocr2.image_processing_got_ocr2": ["GotOcr2ImageProcessor"],
    "internvl.video_processing_internvl": ["InternVLVideoProcessor"],
    "qwen2_vl.video_processing_qwen2_vl": ["Qwen2VLVideoProcessor"],
    "qwen3_vl.video_processing_qwen3_vl": ["smart_resize", "Qwen3VLVideoProcessor"],
}

for module, names in NAMES.items():
    stub = ModuleType(f"transformers.models.{module}")
    vars(stub).update(dict.fromkeys(names))
    sys.modules.setdefault(stub.__name__, stub)
