"""What operator and trainer tell each other.

RunConfig goes in, Progress comes out while it runs, Result comes out at the end, and a manifest
says what stands in object storage. pydantic only: everyone imports this package, it imports nobody.
"""
