"""FineTuneJob: what users write and what they read back.

The pydantic models here are the only source of the CRD, of the API reference and of the defaults.
Imports nothing but the contract, pydantic, PyYAML, jsonschema and a CEL library: no torch, no kopf,
no Kubernetes client.
"""
