"""GRPO: prompts -> completions -> scores -> advantages -> micro-batches.

A buffer is one global batch of completions, on which `iterations` optimizer steps are taken. All of
it is a function of the recipe, the weights and the buffer's index, never of the layout: every rank
draws and scores a share, then all know all of it and compute the rest alike.
"""
