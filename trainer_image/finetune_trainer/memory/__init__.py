"""What a process needs of memory, by a formula over shapes.

Knows the contract only, and no torch. What other chapters allot by (a block, a bucket, a share)
is a constant of the formula, so that they and it agree.
"""
