"""The sibling: a small Qwen3-VL that sees pictures of many sizes of the embedded benchmark's world."""
