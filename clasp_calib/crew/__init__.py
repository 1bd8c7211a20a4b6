"""Who does what long commands are cut into: this process, others on this machine, or a Ray cluster."""
