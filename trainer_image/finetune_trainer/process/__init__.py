"""The process that a rank is: what it is told, its group and device, how it ends.

Knows the contract, and of the trainer nothing. `errors` is what every chapter raises.
"""
