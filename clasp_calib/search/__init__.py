"""Which candidates to try and when to stop: prototypes, the rho grid, racing, and the study that records it."""
