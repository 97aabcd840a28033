"""What is optimised: a package per method, found by its name in `registry`.

The only chapter that knows one method from another.
"""
