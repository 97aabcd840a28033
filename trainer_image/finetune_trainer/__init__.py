"""RunConfig in, a verified adapter in object storage out, one Result at the end.

Light modules (launch, storage, artifacts, data) never import torch; whatever can be refused is
refused before a heavy import. The story is `train.py`; every other module is one chapter of it.
"""
