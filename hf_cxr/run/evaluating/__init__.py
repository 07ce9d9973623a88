"""A saved model, or scores of any program, measured on any data: `hf-cxr evaluate`. Nothing is trained or fitted."""
