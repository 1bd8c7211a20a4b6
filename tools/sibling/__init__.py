"""A vision tower of Qwen3-VL's kind that sees the embedded benchmark's world in pictures of many sizes."""
