"""README, docs and comments of configs show what exists: targets, files, flags, commands, links, searches.

The Python of README and docs runs in tests/train.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hf_cxr.arguments.masking import pretraining_flags
from hf_cxr.commands import COMMANDS
from hf_cxr.config import known_keys
from hf_cxr.data.sources.table.description import load_description
from hf_cxr.run.tuning.search_space import load_search
from hf_cxr.run.tuning.tune import check_point

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line and line[0] != "#"]
OURS = [line for line in LINES if "scripts/" in line or line.startswith("hf-cxr")]

# Comments of configs; a command line in one is indented by three spaces and may go on after a backslash.
CONFIGS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("configs/**/*.yaml")
}
COMMENTS = {name: "\n".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE)) for name, text in sorted(CONFIGS.items())}
COMMAND_LINE = r"\s+(hf-cxr|accelerate launch) "
OF_CONFIGS = [
    line.strip()
    for text in COMMENTS.values()
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
    if re.match(COMMAND_LINE, line)
]

# Flags that are not a run's keys: of each command, read from its source, of accelerate launch and of kill_matrix.py.
SOURCES = [path.read_text(encoding="utf-8") for path in (ROOT / "hf_cxr" / "commands").glob("*.py")]
FLAGS = {
    "config_file",
    "machine_rank",
    "num_cpu_threads_per_process",
    "multi_gpu",
    "num_processes",
    "help",
    "debug",
    "rounds",
    *known_keys(),
    *pretraining_flags().keys,
}
FLAGS |= {flag for text in SOURCES for flag in re.findall(r'"--(\w+)"', text)}


def test_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([a-z-]+)", "\n".join(LINES), re.MULTILINE)
    assert named[:2] == ["quickstart", "test"]
    assert set(named) <= set(targets)


@pytest.mark.parametrize("line", [*OURS, *OF_CONFIGS])
def test_commands_name_files_and_flags_that_exist(line):
    words = shlex.split(line, comments=True)
    for word in words:
        if word.startswith(("scripts/", "configs/")):
            assert (ROOT / word).is_file(), word
    if words[0] == "hf-cxr":
        command = next(word for word in words[1:] if word != "--debug")
        assert command in COMMANDS
        if command == "evaluate":
            assert {"--model", "--predictions"} & set(words), "a run without its flag is taken for a config"
    for word in words:
        if word.startswith("--"):
            assert re.split(r"[=.]", word[2:])[0] in FLAGS, word


def test_commands_in_comments_of_configs_are_found():
    assert len(OF_CONFIGS) > 15
    assert any("--model_kwargs.drop_path_rate" in line for line in OF_CONFIGS)  # the second line of a command


@pytest.mark.parametrize("config", COMMENTS)
def test_flags_and_commands_in_comments_of_configs_exist(config):
    text = COMMENTS[config]
    assert set(re.findall(r"(?<!\S)\[?--([a-z_]+)", text)) <= FLAGS
    assert set(re.findall(r"hf-cxr (?!\W)([a-z]+)", text)) <= set(COMMANDS)
    sentences = [line for line in text.splitlines() if not re.match(COMMAND_LINE, line)]
    in_sentences = [line for line in sentences if re.search(r"hf-cxr \w+ (--|\S*/)", line)]
    assert not in_sentences, "give a command a line of its own"


@pytest.mark.parametrize("page", TEXTS)
def test_flags_and_commands_in_the_text_exist(page):
    text = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    spans = [span for span in re.findall(r"`([^`\n]+)`", text) if not re.match(r"(python )?benchmarks/", span)]
    flags = {flag for span in spans for flag in re.findall(r"(?<!\S)--([a-z_][a-z_0-9]*)", span)}
    assert flags <= FLAGS
    commands = {match for span in spans for match in re.findall(r"hf-cxr ([a-z]+)", span)}
    assert commands <= set(COMMANDS)


def flags_of_benchmark(name):
    text = (ROOT / "benchmarks" / name).read_text(encoding="utf-8")
    if "run_arms" in text:
        text += (ROOT / "benchmarks" / "arms.py").read_text(encoding="utf-8")
    own = set(re.findall(r'"--([\w-]+)"', text))
    return own | (FLAGS if "parse_arguments" in text else set())  # some take a run's keys as well


@pytest.mark.parametrize("page", TEXTS)
def test_flags_of_benchmarks_in_the_text_exist(page):
    text = re.sub(r"\\\n\s*", "", TEXTS[page])
    for name, words in re.findall(r"benchmarks/(\w+\.py)([^`#\n]*)", text):
        flags = re.findall(r"(?<!\S)--([a-z_][\w-]*)", words)
        assert set(flags) <= flags_of_benchmark(name), name


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_files_exist(page):
    folder = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", TEXTS[page]):
        path = (folder / target) if target else ROOT / page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}


def test_every_page_is_reached_from_the_readme_by_links():
    reached, found = set(), {"README.md"}
    while found:
        page = found.pop()
        reached.add(page)
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.md)(?:#[^)]*)?\)", TEXTS.get(page, "")):
            found |= {(ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()} - reached
    assert {page for page in TEXTS if page.startswith("docs/")} - reached == set()
    assert "docs/predictions.md" in re.findall(r"\]\(([^)#]*)", TEXTS["README.md"])  # the format of a file of scores


def test_a_link_of_the_readme_that_stands_for_a_page_has_its_title():
    """A text such as "Training"; one that begins with a small letter is part of a sentence."""
    seen = 0
    for page in ("README.md", "docs/index.md"):
        for text, target in re.findall(r"\[([A-Z][^]]*)\]\(([^)#:]+\.md)\)", TEXTS[page]):
            path = (ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
            if text == Path(target).name:
                continue
            title = TEXTS[path].splitlines()[0].removeprefix("# ")
            assert text in (title, title.split(":")[0]), f"{page}: {target} has the title {title!r}"
            seen += 1
    assert seen > 20


def test_set_up_uses_the_constraints():
    installs = [line for line in (*LINES, *(ROOT / "Makefile").read_text().splitlines()) if "pip install" in line]
    assert len(installs) >= 3
    assert all("--constraint constraints.txt" in line for line in installs)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!-]+", pin) for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)


YAMLS = [block for text in TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_yaml_is_yaml_and_a_description_can_be_read(tmp_path):
    shown = [yaml.safe_load(block) for block in YAMLS]
    assert all(isinstance(values, dict) for values in shown)
    descriptions = [values for values in shown if "files" in values]
    assert len(descriptions) > 1
    for description in descriptions:
        (tmp_path / "table.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
        assert load_description(tmp_path / "table.yaml").name == description["name"]


def test_a_search_takes_every_value_that_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the commands are given
    searches = [values for block in YAMLS if "space" in (values := yaml.safe_load(block))]
    assert searches
    for values in searches:
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        search = load_search(tmp_path / "search.yaml", ["--nih_root", "ChestX-ray14"])
        for point in search.extremes():
            check_point(search, point)
