"""The README's own words: its code runs, its files exist, both languages say the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_python_blocks_run_in_order():
    from bert_theseus.checkpoint import random_bert
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    scope = {"bert_dir": random_bert("bert", tokens, layers=2, hidden=8, heads=2)}
    for block in blocks(README):
        exec(block, scope)
    assert scope["theseus_model"].output_shape == (None, 15)


def test_both_languages_show_the_same_code_and_commands():
    def commands(text):
        found = re.findall(r"^    (?:\.venv|echo|python|make).*", text, re.M)
        return [line.split("  #")[0].split(" [")[0].rstrip() for line in found]

    def without_remarks(text):
        return [re.sub(r" +#.*", "", block) for block in blocks(text)]

    assert commands(README) == commands(CHINESE) and len(commands(README)) > 5
    assert without_remarks(README) == without_remarks(CHINESE)


@pytest.mark.parametrize("text", [README, CHINESE])
def test_linked_files_exist(text):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)


def test_the_environment_finds_the_checkout_from_anywhere():
    """The README's line, which is the Makefile's, run in an environment without packages."""
    (line,) = re.findall(r"^    (echo .*)", README, re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert line in makefile.replace("$$", "$").replace("$(VENV)", ".venv")
    (checkout := Path("a checkout")).mkdir()
    (checkout / "bert_theseus").symlink_to(ROOT / "bert_theseus")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    subprocess.run(["sh", "-c", line], cwd=checkout, check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = subprocess.run([checkout.resolve() / ".venv" / "bin" / "python", "-c",
                            "import bert_theseus; print(bert_theseus.__file__)"], cwd="/",
                           env=env, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()) == checkout.resolve() / "bert_theseus" / "__init__.py"


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (demo|test|benchmark|clean)", README)):
        assert re.search(rf"^{target}:", makefile, re.M)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
