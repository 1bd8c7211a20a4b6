"""How vLLM is run here: on a CPU, in this process where it is not a server, without torchvision."""

import os
import runpy
from pathlib import Path

STUBS = Path(__file__).parent / "without_torchvision"
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM reads these once: two ranks share what cores there are.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "PYTHONPATH": str(STUBS),
}

os.environ.update(SETTINGS)
runpy.run_path(str(STUBS / "sitecustomize.py"))
