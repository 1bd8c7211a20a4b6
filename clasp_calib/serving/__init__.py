"""What a server of others needs to run an artifact: its numbers for one stage before the decoder, and the router."""
