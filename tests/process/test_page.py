"""The page in a browser: its script sorts tables, opens what is folded for printing, and nothing is refused or logged.

Skipped where there is no Chromium (Debian: apt-get install chromium).
"""

import re
import subprocess

from browsers import CHROMIUM, needs_browser

from hf_cxr.reporting.document import Details, Document, Heading, Table, Text

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)

pytestmark = needs_browser()


def opened(page: str, folder, *options: str) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what they logged."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def page_of() -> str:
    rows = [
        ["Nodule", "1,200 (30)", "0.775 (0.687–0.875)"],
        ["Edema", "56 (28)", "0.994 (0.988–0.998)"],
        ["Hernia", "0 (0)", "undefined"],
        ["Mass", "75 (43)", "−0.100 (−0.200 to 0.010)"],
        ["macro mean", "", "0.5"],
    ]
    table = Table.of(("finding", "positives", "AUC"), rows, totals=1)
    headings = [Heading(f"Part {number}") for number in range(5)]
    document = Document("A run", (*headings, table, Details("More", (Text("folded"),))))
    return document.to_html("nowhere")


def with_script(page: str, script: str) -> str:
    """The page with a script of the test's, which its policy would refuse."""
    page = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    return page.replace("</body>", f"<script>{script}</script></body>")


def test_a_click_sorts_by_number_and_the_mean_stays_last(tmp_path):
    script = """
      const order = () => [...document.querySelectorAll("tbody tr, tfoot tr")].map((row) => row.cells[0].textContent);
      const seen = [order()];
      for (const column of [2, 2, 2, 1, 0]) {
        const heading = document.querySelectorAll("thead th")[column];
        heading.querySelector("button").click();
        seen.push([...order(), heading.getAttribute("aria-sort")]);
      }
      document.body.innerHTML = "<pre>" + seen.map((each) => each.join(",")).join(";") + "</pre>";
    """
    dom, logged = opened(with_script(page_of(), script), tmp_path)
    seen = [each.split(",") for each in re.search("<pre>(.*)</pre>", dom)[1].split(";")]
    original = ["Nodule", "Edema", "Hernia", "Mass", "macro mean"]
    assert seen == [
        original,
        ["Edema", "Nodule", "Mass", "Hernia", "macro mean", "descending"],  # no number: last, either way
        ["Mass", "Nodule", "Edema", "Hernia", "macro mean", "ascending"],
        [*original, "none"],
        ["Nodule", "Mass", "Edema", "Hernia", "macro mean", "descending"],  # 1,200 is more than 75
        ["Edema", "Hernia", "Mass", "Nodule", "macro mean", "ascending"],
    ]
    assert logged == []


def test_the_policy_lets_the_script_of_the_page_run_and_no_other(tmp_path):
    dom, logged = opened(page_of(), tmp_path)
    assert dom.count('<button type="button"') == 3
    assert logged == []
    foreign = page_of().replace("</body>", "<script>document.title = 'changed'</script></body>")
    dom, logged = opened(foreign, tmp_path)
    assert "<title>A run</title>" in dom
    assert len(logged) == 1


def test_what_is_folded_is_open_while_it_prints(tmp_path):
    script = """
      const open = () => document.querySelector("main details").open;
      const seen = [open()];
      for (const name of ["beforeprint", "afterprint"]) { window.dispatchEvent(new Event(name)); seen.push(open()); }
      document.body.innerHTML = "<pre>" + seen.join(",") + "</pre>";
    """
    dom, _ = opened(with_script(page_of(), script), tmp_path)
    assert re.search("<pre>(.*)</pre>", dom)[1] == "false,true,false"
