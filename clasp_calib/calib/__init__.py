"""What one candidate is worth: calibration samples, metrics, the evaluator, comparisons with intervals."""
