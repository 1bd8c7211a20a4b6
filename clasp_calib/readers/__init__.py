"""Readers of samples as other projects publish them, one file a format.

A reader is a subclass of `clasp_calib.common.sample_readers.SampleReader` and an entry point of the group
``clasp_calib.readers``; the entry point's name is the prefix that chooses it (``pope:FILE``). ``common`` imports none
of them. They share `checked_cells` (rows with checked cells), `json_elements` (large JSON, element by element) and
`asking` (what benchmarks append to a question).
"""
