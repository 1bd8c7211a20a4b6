"""What every room may use: errors, the run directory, the sample table, hashing, progress."""
