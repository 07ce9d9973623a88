"""What a reader sees of a run, an evaluation or a comparison: report, figures, model card."""
