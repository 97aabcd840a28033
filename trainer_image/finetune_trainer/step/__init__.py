"""One optimizer step: the model scored, the loss averaged over the whole step, weights and moments.

Knows micro-batches and ranks; what is optimised it is given. `feed` is what a method fills.
"""
