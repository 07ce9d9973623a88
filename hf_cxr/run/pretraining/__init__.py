"""Pre-training without labels: `hf-cxr pretrain`. Its folder is the `--model_name_or_path` of a run."""
