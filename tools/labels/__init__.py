"""Makes what labels questions: the head on a sentence embedding, the router, and a small language model to try."""
