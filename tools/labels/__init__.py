"""Makes what labels questions without a language model: the head on a sentence embedding, and the router."""
