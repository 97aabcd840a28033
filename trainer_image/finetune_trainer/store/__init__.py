"""What lies outside this machine: object storage, the hub, and the artifacts in a bucket.

Bytes in and out, each file checked by its digest. Knows files and manifests, nothing of what a
model or a run is. Torch-free.
"""
