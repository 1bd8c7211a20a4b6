"""Which candidates are measured on which samples: one strategy a file, all behind one interface."""
