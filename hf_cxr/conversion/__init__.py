"""Weights in other programs' layouts, made into the model folders that `--model_name_or_path` takes.

`reading` opens a file without executing anything in it; `checkpoint` finds the backbone in what it contains and names
what is left out; `swin` derives the architecture from the tensors' shapes and translates the names; `folder` writes
the model folder and loads it once. A weight that is left over, missing or of another shape is refused by its name in
the file: a converted backbone is whole, or there is none.
"""
