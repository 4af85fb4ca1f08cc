"""`python -O` takes the assert statements out: what is checked, proven and trained must be the same without them."""

from __future__ import annotations

import json
from pathlib import Path

import support
import written_plugins

SCRIPT = """
import json, sys
from pathlib import Path
import support
from coordcore.errors import RunError
from coordcore.manifest import ManifestError

assert False, "python -O does not run this"
root, base = Path(sys.argv[1]), Path(sys.argv[2])
problems = failure = None
try:
    support.loaded(root / "wrong", base, tuner={"rank": 0}, train={"betas": [0.9, 2.0]})
except ManifestError as error:
    problems = str(error)
steps = {"steps": 1}
run = support.train(root / "right", base, train=steps)
del support.DEFAULT["surgery"]  # it adds rows to the head, too
try:
    support.train(root / "broken", base, train=steps, surgery={"head_lowrank": {}})
except RunError as error:
    failure = str(error)
print("REPORT" + json.dumps([problems, support.losses(run), failure]))
"""


def test_check_proof_and_training_are_the_same(coord_base: Path, tmp_path: Path) -> None:
    source = Path(__file__).with_name("cases") / "head_lowrank.py"
    halved = source.read_text(encoding="utf-8").replace(
        "return output  # the loss, where lm_head.forward is replaced (decision 0001)", "return output * 0.5"
    )
    script = tmp_path / "script.py"
    found = []
    with written_plugins.installed(tmp_path / "site", "head_lowrank_optimised", {"plugin.py": halved}):
        for flags, text in (["-O"], SCRIPT), ([], SCRIPT.replace("assert False", "assert True")):
            script.write_text(text)
            root = tmp_path / f"root{len(found)}"
            path = f"{tmp_path / 'site'}:{Path(support.__file__).parent}:{support.FAKE_PLUGIN}"
            done = support.python(*flags, str(script), str(root), str(coord_base), PYTHONPATH=path)
            assert done.returncode == 0, done.stdout + done.stderr
            found.append(json.loads(done.stdout.rpartition("REPORT")[2].replace(str(root), "ROOT")))
    problems, losses, failure = found[0]
    assert found[0] == found[1]
    assert ("tuner.rank" in problems, "train.betas" in problems, bool(losses)) == (True, True, True)
    assert failure.startswith("surgery.head_lowrank: the objective's loss is "), failure
