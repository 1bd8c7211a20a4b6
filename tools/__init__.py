"""What develops the package and is not shipped with it."""
