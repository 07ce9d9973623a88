"""Sources of radiographs, each brought to the schema of `hf_cxr.data.schema`."""
