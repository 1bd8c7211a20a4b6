"""What an artifact is worth: evaluation, comparison with peers, ablations, timing, intervals."""
