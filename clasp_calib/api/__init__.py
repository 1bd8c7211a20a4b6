"""What a user calls: one function for each thing that the command line does."""
