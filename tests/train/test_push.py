"""`coordcore push`: what goes up and what never does, the model card, and what is said where a hub refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import support
import yaml
from fake_hub import serving
from PIL import Image
from typer.testing import CliRunner, Result

from coordcore.cli import app
from coordcore_train.checkpoint.code import tell_of_trust
from coordcore_train.hub import push as hub
from coordcore_train.hub.card import is_untouched
from coordcore_train.hub.paths import is_path, without_paths


@pytest.fixture(scope="module")
def finished(coord_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its merged checkpoint. Read only."""
    base = Path(shutil.copytree(coord_base, tmp_path_factory.mktemp("base") / "alice-base"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [base]\n---\n# The base\n")
    folder = tmp_path_factory.mktemp("run")
    return support.train(folder, base, train={"steps": 2}, output={"merge": True}, name=None).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "rings"))


def push(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def dry(run: Path, *arguments: Any) -> Result:
    return push(run, "alice/rings", "--dry-run", *arguments)


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def card_of(run: Path) -> str:
    return (run / "merged/README.md").read_text()


# --- the card -------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_run_was(run: Path) -> None:
    metrics = {"AP": 0.51234}
    (run / "eval/rings").mkdir(parents=True)
    (run / "eval/rings/metrics.json").write_text(json.dumps(metrics))
    result = dry(run)

    text = card_of(run)
    assert (result.exit_code, result.stderr) == (0, "")
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["coordcore", "visual-grounding", "coord-tokens"],
    }
    last = [line for line in support.metrics(support.RunDir(run)) if "loss" in line][-1]
    for said in (
        "`alice-base`, fine-tuned with coordcore ",
        "It writes coordinates as tokens, `<|coord_0|>` to `<|coord_999|>`.",
        "Convention nearest_999 (version 1): bin k, of 0 to 999, is pixel k / 999 * size",
        '{"objects": [{"desc": "red circle", "bbox_2d": [<|coord_100|>, ',
        "| steps | 2 |",
        "| batch | 4 examples x 1 micro-batches x 1 ranks |",
        "| seed | 42 |",
        "| surgery | `fake_rows` |",
        f"| loss | {last['loss']:.4g} | ",
        "| AP | 0.5123 |",
    ):
        assert said in text
    state = json.loads((run / "state.json").read_text())
    assert f"| examples | {state['examples']['training']} training, {state['examples']['held out']} held out |" in text
    assert str(run.parent) not in text
    assert "/alice-base" not in text


def test_a_model_that_says_corners_together_is_told_of_as_one(run: Path) -> None:
    dry(run)
    assert "in one pass" not in card_of(run)
    change(run / "merged/coordcore.json", parallel_boxes=True)
    (run / "merged/README.md").unlink()
    dry(run)
    assert "in one pass: `coordcore predict --parallel fast --tolerance 999`" in card_of(run)


def test_a_base_of_the_hub_is_named_by_its_id_and_commit(run: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    manifest = run / "manifest.resolved.toml"
    cached = f"/home/carol/.cache/huggingface/hub/models--Qwen--Qwen3-VL-2B-Instruct/snapshots/{commit}"
    manifest.write_text(re.sub(r'base = ".*"', f'base = "{cached}"', manifest.read_text()))
    assert dry(run, "--overwrite-card").exit_code == 0

    text = card_of(run)
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("Qwen/Qwen3-VL-2B-Instruct", "finetune")
    assert f"(at commit {commit})" in text
    assert 'base = "Qwen/Qwen3-VL-2B-Instruct"' in text
    assert "carol" not in text


def test_the_python_of_the_card_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dry(run)
    [code] = re.findall(r"```python\n(.*?)```", card_of(run), re.DOTALL)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code.replace('"alice/rings"', repr(str(run / "merged"))).replace("=2048", "=4"), found)

    assert found["question"] == json.loads((run / "merged/coordcore.json").read_text())["question"]["text"]
    assert found["output"].shape[1] - found["inputs"]["input_ids"].shape[1] == 4
    assert isinstance(found["answer"], str)


def test_the_card_is_written_anew_unless_somebody_changed_it(run: Path) -> None:
    assert "wrote README.md" in dry(run).stdout  # over the base's own
    first = card_of(run)
    assert is_untouched(first)
    assert "wrote README.md" in dry(run, "--revision", "v2").stdout
    assert card_of(run) == first.replace('"alice/rings"', '"alice/rings", revision="v2"').replace(
        "download alice/rings", "download alice/rings --revision v2"
    ).replace(first[-70:], card_of(run)[-70:])
    (run / "merged/README.md").write_text(first + "Mine.\n")
    result = dry(run)
    assert "README.md is not ours and was kept" in result.stdout
    assert card_of(run) == first + "Mine.\n"
    assert "wrote README.md" in dry(run, "--overwrite-card").stdout
    assert card_of(run) == first


def test_python_that_was_trusted_is_told(run: Path) -> None:
    merged = run / "merged"
    for name, more in (
        ("coordcore", {"trust_remote_code": True}),
        ("config", {"auto_map": {"AutoModel": "own.Model"}}),
    ):
        file = merged / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    tell_of_trust(merged, merged)  # as the merge does it, after the base's own card
    assert "wrote README.md" in dry(run).stdout

    assert card_of(run).count("## Code") == 1
    assert "- `config.json: auto_map.AutoModel names the class 'own.Model'" in card_of(run).replace('"', "'")
    assert card_of(run).count("trust_remote_code=True") == 2


def test_a_folder_without_its_run_has_a_card_of_what_the_folder_says(run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run / "merged", tmp_path / "alone")
    assert dry(alone, "--overwrite-card").exit_code == 0

    text = (alone / "README.md").read_text()
    assert "# rings\n" in text
    assert "Convention nearest_999" in text
    assert "Training" not in text


def test_settings_lose_paths_and_secrets() -> None:
    settings = {
        "train": "/home/carol/data/train.jsonl",
        "prompt": "Answer yes/no, and/or <tool> </tool> at http://a.b/c/d.",
        "note": "from /srv/x/y.jsonl, twice",
        "from": "data:/srv/x/z.jsonl of ~carol/y/w.jsonl",
        "url": "https://carol:pw@a.b/c",
        "keys": {"aws_access_key_id": "AK", "PGPASSWD": "x", "proxy_auth": "y", "/home/carol/a.jsonl": 2},
        "swift": {"hub_token": "hf_x", "max_tokens": 3, "files": ["C:\\Users\\carol\\x.bin", "~/x.txt", 1]},
    }
    assert without_paths(settings) == {
        "train": "train.jsonl",
        "prompt": settings["prompt"],
        "note": "from y.jsonl, twice",
        "from": "data:z.jsonl of w.jsonl",
        "url": "https://a.b/c",
        "keys": {"a.jsonl": 2},
        "swift": {"max_tokens": 3, "files": ["x.bin", "x.txt", 1]},
    }
    assert not any(map(is_path, ("/", "/think", "a/b", "Qwen/Qwen3", "</s>", "{% if /x %}")))


def test_what_a_run_says_breaks_no_table(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "eval/rings").mkdir(parents=True)
    (run / "eval/rings/metrics.json").write_text(json.dumps({"AP|red\n\x1bcircle": 0.5}))
    change(run / "state.json", content={"train": {"file": "/data/a|b`c`.jsonl", "bytes": 3, "sha256": "abc"}})
    asked = {"text": "a\r```\n| b\u2028c\x1b", "system": None, "prompts": {"detect": "a | b\r\nc"}}
    change(run / "merged/coordcore.json", question=asked)
    monkeypatch.setattr("coordcore_train.hub.card._example", lambda _info: "```json\n[]\n```")
    assert dry(run).exit_code == 0

    text = card_of(run)
    for line in (
        "| AP\\|red \\x1bcircle | 0.5 |",
        "| files | `` a\\|b`c`.jsonl `` (3 bytes, SHA-256 abc) |",
        "Asked in every example: ```` a ``` | b c\\x1b ````",
        "| detect | `a \\| b c` |",
        "````\n```json\n[]\n```\n````",
    ):
        assert f"\n{line}\n" in text


def test_a_line_of_metrics_without_its_step_is_told_as_it_is(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"loss": 1.5, "epoch": 2.0}\n')
    assert dry(run).exit_code == 0
    assert "| epochs | 2 |\n" in card_of(run)
    assert "| steps |" not in card_of(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": {"ranks": "x"}}, "says layout, content or examples otherwise than a run (ValueError: "),
        ({"layout": {"ranks": None}}, "otherwise than a run (TypeError: "),
        ({"examples": {"training": "many"}}, "otherwise than a run (TypeError: "),
        ({"content": {"train": {"file": "x"}}}, "otherwise than a run (KeyError: 'bytes')"),
        ({"content": {"train": "x"}}, "otherwise than a run (TypeError: "),
    ],
)
def test_a_damaged_state_is_told(run: Path, settings: dict[str, Any], message: str) -> None:
    change(run / "state.json", **settings)
    result = dry(run)
    assert result.exit_code == 2
    assert f"{run / 'state.json'}: " in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("\nmax_length = ", '\nmax_length = "x"\n# ', "train.max_length is 'x'; the run wrote it otherwise"),
        ("\nlearning_rate = ", '\nlearning_rate = "x"\n# ', "train.learning_rate is 'x'; the run wrote it otherwise"),
        ("\n[tuner]", "\n[[tuner]]", "tuner is [{"),
    ],
)
def test_a_damaged_manifest_is_told(run: Path, before: str, after: str, message: str) -> None:
    manifest = run / "manifest.resolved.toml"
    manifest.write_text(manifest.read_text().replace(before, after, 1))
    result = dry(run)
    assert result.exit_code == 2
    assert f"{manifest}: {message}" in result.stderr


def test_metrics_that_are_no_text_are_told(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n')
    result = dry(run)
    assert (result.exit_code, result.stderr) == (
        2,
        f"coordcore: {run / 'metrics.jsonl'}:2: is no line of metrics; remove it\n",
    )


def test_a_card_that_is_a_pipe_is_not_read(run: Path) -> None:
    (run / "merged/README.md").unlink(missing_ok=True)
    os.mkfifo(run / "merged/README.md")
    result = dry(run)
    assert result.exit_code == 2
    assert f"{run / 'merged/README.md'}: cannot be read: is a pipe or a device" in result.stderr


def test_a_path_in_the_head_of_a_card_is_told(run: Path) -> None:
    (run / "merged/README.md").write_text("---\nlicense: other\nlicense_link: /home/carol/LICENSE\n---\n")
    result = dry(run, "--overwrite-card")
    assert result.exit_code == 2
    assert (
        "would name /home/carol/LICENSE, a path of this machine, as the head of the card that is there" in result.stderr
    )


# --- what goes up ---------------------------------------------------------------------------------------------------


def test_only_the_model_goes_up(run: Path) -> None:
    merged = run / "merged"
    for name in ("optimizer.pt", "training_args.bin", "rng_state_0.pth", "train.log", ".cache", "metrics.jsonl"):
        (merged / name).write_text("x")
    (merged / "runs").mkdir()
    (merged / "runs/events.out.tfevents.1").write_text("x")
    prepared = hub.prepare(run, "alice/rings", revision=None, overwrite_card=False)

    names = {upload.name for upload in prepared.files.uploads}
    assert {"README.md", "config.json", "coordcore.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {
        name for name in names if "events" in name or name.startswith((".", "optim", "train", "rng", "metrics"))
    }
    assert set(prepared.files.left) == {
        *("optimizer.pt", "training_args.bin", "rng_state_0.pth", "train.log", ".cache", "metrics.jsonl", "runs"),
    }
    assert f"{'stays here':>15}  optimizer.pt" in str(prepared)


def test_where_it_was_loaded_from_goes_up_as_a_name(run: Path) -> None:
    config = run / "merged/config.json"
    before = {**json.loads(config.read_text()), "_name_or_path": "/home/carol/models/base"}
    config.write_text(json.dumps(before))
    prepared = hub.prepare(run, "alice/rings", revision=None, overwrite_card=False)

    [upload] = [upload for upload in prepared.files.uploads if upload.name == "config.json"]
    assert upload.content is not None
    assert json.loads(upload.content) == {**before, "_name_or_path": "base"}
    assert json.loads(config.read_text()) == before
    assert "config.json: _name_or_path goes up as a name" in str(prepared)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("extra.json", '{"a": {"b": ["/srv/data/x"]}}', "a.b[0] is '/srv/data/x', a path of this machine; remove it"),
        ("extra.json", "[1, 2", "not readable as JSON: "),
        ("code.py", "PATH = '/home/carol/x.py'", "names /home/carol/x.py, a path of this machine; take it out"),
        ("NOTES.md", "see {run}/state.json", "names {run}"),
        ("Modelfile", "FROM /home/carol/x.gguf", "names /home/carol/x.gguf, a path of this machine"),
        ("run.sh", "cd /home/carol/x", "names /home/carol/x, a path of this machine"),
        ("extra.JSON", '{"a": "see /home/carol/x"}', "names /home/carol/x, a path of this machine"),
        ("extra.json", '{"a": {"/srv/data/x": 1}}', "a, a key, is '/srv/data/x', a path of this machine"),
        ("extra.json", r'{"a": "see \/home\/carol\/x"}', "names /home/carol/x, a path of this machine"),
        ("extra.json", r'{"a": "{#\n/home/carol/x #}"}', "names /home/carol/x, a path of this machine"),
    ],
)
def test_a_file_that_names_this_machine_is_refused(run: Path, name: str, text: str, message: str) -> None:
    (run / "merged" / name).write_text(text.replace("{run}", str(run)))
    before = card_of(run)
    result = dry(run)

    assert result.exit_code == 2
    assert f"{run / 'merged' / name}: {message.replace('{run}', str(run))}" in result.stderr
    assert card_of(run) == before


def test_the_tokens_of_a_vocabulary_may_look_like_paths(run: Path) -> None:
    (run / "merged/vocab.json").write_text('{"/home/x/y": 1}')
    assert dry(run).exit_code == 0


def test_a_file_that_is_no_text_is_not_read_for_paths(run: Path) -> None:
    (run / "merged/tokenizer.model").write_bytes(b"\0\1/home/carol/x/y")
    assert dry(run).exit_code == 0


def test_a_link_to_a_folder_is_refused(run: Path) -> None:
    """It would be passed over in silence."""
    (run / "merged/more").symlink_to(run / "checkpoints")
    result = dry(run)
    assert result.exit_code == 2
    assert f"{run / 'merged/more'}: is a link to a folder; put the folder itself there" in result.stderr


def test_half_a_checkpoint_is_refused(run: Path) -> None:
    (run / "merged/model.safetensors").write_bytes((run / "merged/model.safetensors").read_bytes()[:-8])
    result = dry(run)
    assert result.exit_code == 2
    assert "model.safetensors" in result.stderr


# --- refusals, before anything is sent ------------------------------------------------------------------------------


def test_what_is_not_merged_is_told_how_it_would_be(run: Path) -> None:
    checkpoint = next((run / "checkpoints").glob("checkpoint-*"))
    merge = f"coordcore merge {run} --output {run / 'merged-checkpoint-2'} --checkpoint {checkpoint}"
    assert merge in dry(checkpoint).stderr
    alone = shutil.copytree(checkpoint, run.parent / "alone")
    assert "merge it first: coordcore merge RUN --output DIR, of the run it is of" in dry(alone).stderr
    shutil.rmtree(run / "merged")
    result = dry(run)
    expected = f"coordcore: {run}: is not merged yet; coordcore merge {run} --output {run / 'merged'}\n"
    assert (result.exit_code, result.stderr) == (2, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "alice/rings"], "none: no such folder; name a run folder"),
        ([".", "alice/rings"], "holds neither a run nor a checkpoint (no config.json)"),
        *(
            ([".", name], f"{name!r} cannot be a repository's name: ")
            for name in ("rings", "a/b/c", "alice/rings.git", "alice/ri--ngs", "", "https://hf.co/a/b", f"a/{'b' * 99}")
        ),
        ([".", "alice/rings", "--revision", "a b"], "--revision 'a b': is no name of a branch"),
        ([".", "alice/rings", "--revision", "../main"], "--revision '../main': is no name of a branch"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = push(*arguments, "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_offline_and_without_a_token(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = push(run, "alice/rings")
    assert (result.exit_code, result.stderr.partition(",")[0]) == (2, "coordcore: HF_HUB_OFFLINE is set")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    result = push(run, "alice/rings")
    assert result.exit_code == 2
    assert "log in with `hf auth login`, or set HF_TOKEN" in result.stderr
    assert not is_untouched(card_of(run))  # nothing was written


# --- against a hub --------------------------------------------------------------------------------------------------

ASK = (
    "import sys, coordcore_train.hub.push as hub; hub.WAITS = (0.0, 0.0); from coordcore.cli import main; "
    "sys.argv[0] = 'coordcore'\n"
    "try: main()\n"
    "finally: print('torch' in sys.modules, file=sys.stderr)"
)


def ask(run: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    """A push in a process of its own: huggingface_hub reads its variables once."""
    settings = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_made_up", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    result = support.python("-c", ASK, "push", str(run), "alice/rings", *arguments, **settings)
    return result.returncode, result.stdout, result.stderr


def test_a_push_is_one_commit_and_is_tried_again(run: Path) -> None:
    stale = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "LICENSE": b"mine"}
    with serving(failing=[503, 500], files=dict(stale), public=False) as made:
        code, said, complaints = ask(run, made.url, "--private", "--revision", "v2")

    assert (code, complaints.splitlines()[-1]) == (0, "False"), complaints
    assert said.splitlines()[-1] == f"pushed: {made.url}/alice/rings/commit/1"
    [repository] = made.repositories
    assert (repository["organization"], repository["name"]) == ("alice", "rings")
    assert "private" in {repository.get("visibility"), "private" if repository.get("private") else None}
    assert (made.branches, made.commits, made.tokens) == (["v2"], 3, {"Bearer hf_made_up"})
    merged = {file.name: file.read_bytes() for file in (run / "merged").iterdir()}
    assert made.files == {**merged, "LICENSE": b"mine"}


@pytest.mark.parametrize(
    ("failing", "code", "message"),
    [
        ([503] * 3, 1, "alice/rings: not pushed: not now, 3 times; nothing of this push is to be seen there"),
        ([403], 2, "alice/rings: not pushed, the hub refuses (403): not now; use a token that may write there"),
    ],
)
def test_a_hub_that_fails_has_nothing_of_the_push(run: Path, failing: list[int], code: int, message: str) -> None:
    with serving(failing=list(failing)) as made:
        found = ask(run, made.url)
    assert found[0] == code
    assert message in found[2]
    assert (made.files, made.commits) == ({}, len(failing))
    assert "pushed: " not in found[1]


def test_nothing_private_goes_into_a_public_repository(run: Path) -> None:
    with serving() as made:
        code, _, complaints = ask(run, made.url, "--private")
    assert (code, made.commits) == (2, 0)
    assert "alice/rings: exists and is public; make it private there" in complaints


def test_no_hub_at_all(run: Path) -> None:
    with serving() as made:
        pass
    code, _, complaints = ask(run, made.url)
    assert code == 1
    assert "alice/rings: not pushed: ConnectError: " in complaints
