"""A pruned model inside the evaluation harnesses of others."""
