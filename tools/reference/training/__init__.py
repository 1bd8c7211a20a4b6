"""How the reference model is made: the tower on dense labels, the decoder on oracle tokens, then both joined."""
