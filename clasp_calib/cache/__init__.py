"""Picture x vision layer -> features: computed once, kept in HDF5 shards, found through SQLite."""
