"""The commands: each a thin typer function over what the rooms offer. Heavy imports happen inside them."""
