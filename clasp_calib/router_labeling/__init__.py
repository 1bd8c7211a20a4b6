"""From a question to its intent, and from the intent to the class whose fusion and ratio are used.

`taxonomy` says which intents and classes there are, `rules` matches keywords, `lint` looks at rules, and
`labelers` is the door that labelers share. A language model is asked what `prompt` says, by `server_labeler` or by
`vllm_labeler`; `replies` reads its answers and `journalled` keeps them. `serving` starts a server, and `table` labels
a whole sample table.
"""
