"""Several methods from one YAML: `hf-cxr compare`. Each run is a separate process, started from a queue."""
