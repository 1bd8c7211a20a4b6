"""What leaves the house: the versioned artifact of mixtures and ratios that a server needs."""
