"""What the reference model fulfils: settings, scores, statistics and requirements."""
