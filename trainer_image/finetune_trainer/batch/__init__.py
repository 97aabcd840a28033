"""From encoded rows to the tensors of a micro-batch.

Which rows make up a step is a function of seed and step, never of the layout; what a micro-batch
holds is what every method's objective is asked about.
"""
