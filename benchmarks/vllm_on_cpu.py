"""How vLLM is set up on a CPU: one process and one thread, for its own get into each other's way on few cores."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 32, "block_size": 32}
"""Arguments of ``vllm.LLM``."""
