"""The embedded reference: a procedural benchmark and a small trained LLaVA, for when a user has nothing yet."""
