"""The Trainer with its loss, sampler and pixels, what changes during training, and checkpoints."""
