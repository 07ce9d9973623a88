"""A search for settings on the validation split, from one YAML: `hf-cxr tune`."""
