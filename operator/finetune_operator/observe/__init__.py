"""What the cluster shows of one job, taken in: bodies -> Observed. Pure.

Whoever else writes into an object is believed only what it can know. Judging rests on the values of
`observed` alone.
"""
