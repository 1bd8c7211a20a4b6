"""From a question to its intent, and from the intent to the class whose fusion and ratio are used.

`taxonomy` says which intents and classes there are, `rules` matches keywords, `labelers` are the backends
that name an intent, and `table` labels a whole sample table.
"""
