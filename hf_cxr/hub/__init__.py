"""Everything that is sent to the Hugging Face Hub: a finished run, and a prepared folder as a dataset.

    from hf_cxr.hub import plan_push, push_run

    push_run("runs/quickstart", "you/quickstart")

Contract of the family: the files of a push are named one by one and never matched by a pattern. Before the first
request,

    of a run        each file is parsed, searched for what must not leave this machine, and compared with the others;
    of a dataset    the card, the description and all columns with text are searched.

The Parquet files of a dataset are written from these columns one by one, between the uploads; their texts are searched
once more then, and nothing can be seen before the commit at the end.

    file_list     which files of a run are sent
    handler       the two files that make a pushed model an Inference Endpoint
    parsing       what is in a file
    onnx_text     the text in an ONNX model
    leaks         access tokens and local paths
    same_run      files of different runs in one folder
    requests      a time limit, and one clear line for each failure
    ownership     whether a repository's files are of this package
    repository    made, compared with local files, committed to, tagged
    runs          a run, as one commit with a tag
    earlier_ids   whether ids of an earlier push would give hashed ones away
    datasets      a prepared folder, as Parquet files with a card
"""

from hf_cxr.late_names import late_names

HOME = {
    **dict.fromkeys(["PushExtras", "collect"], "hf_cxr.hub.file_list"),
    **dict.fromkeys(["HubError"], "hf_cxr.hub.requests"),
    **dict.fromkeys(["Pushed", "prepare_repo"], "hf_cxr.hub.repository"),
    **dict.fromkeys(
        ["PushPlan", "plan_push", "push_command", "push_run", "push_target", "run_tag"],
        "hf_cxr.hub.runs",
    ),
    **dict.fromkeys(["plan_dataset", "push_dataset"], "hf_cxr.hub.datasets"),
}
__getattr__, __dir__ = late_names(__name__, HOME)
