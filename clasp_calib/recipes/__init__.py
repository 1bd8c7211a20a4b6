"""The paper's tables as recipes: what to run for each, and what the paper printed."""
