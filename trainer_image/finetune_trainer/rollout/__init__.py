"""Draws completions of prompts from the model as it stands.

One interface (`base`), two engines: `builtin` generates with the training model, `openai` asks a
server that is given each step's adapter. Which tokens the built-in one draws depends on the request
and the weights alone (`sampling`), never on ranks, batches or ZeRO stage.
"""
