"""What one candidate is worth: features, prompts, metrics, objectives and the evaluator."""
