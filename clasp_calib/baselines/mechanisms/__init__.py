"""What only peers need of a model: choosing row by row, merging and shrinking inside the tower."""
