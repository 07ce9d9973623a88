"""Several methods from one YAML: `hf-cxr compare`. Each run is a process of its own, started from a queue."""
