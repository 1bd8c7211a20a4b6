"""Tables and pictures of what a calibration bought."""
