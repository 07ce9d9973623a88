"""Files of a saved model, changed as a stranger's may be."""

import json


def edit(folder, file="config.json", **changes):
    """Change keys of a JSON file; `...` takes one out."""
    values = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
