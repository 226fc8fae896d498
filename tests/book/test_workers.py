"""Launching workers, without TensorFlow."""

import json
import os
import time

import pytest

from bnlib.book.workers import run_workers

INDEX = "import os, sys, json, time; i = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def test_workers_get_ports_of_their_own_and_no_proxy(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "somewhere")
    monkeypatch.setenv("no_proxy", "*")
    code = INDEX + "print(json.dumps(dict(os.environ)))"
    found = [json.loads(text) for text in run_workers(["-c", code], 3)]
    configs = [json.loads(each["TF_CONFIG"]) for each in found]
    assert [c["task"] for c in configs] == [
        {"type": "worker", "index": i} for i in range(3)
    ]
    assert all(c["cluster"] == configs[0]["cluster"] for c in configs)
    assert len(set(configs[0]["cluster"]["worker"])) == 3
    for each in found:
        assert each["CUDA_VISIBLE_DEVICES"] == "-1"
        assert not [name for name in each if name.lower().endswith("_proxy")]


def test_a_crash_ends_all_and_shows_its_last_lines(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(INDEX + "if i: raise SystemError('no luck')\ntime.sleep(60)")
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker 1 of 2 ended(.|\n)*no luck"):
        run_workers([script], 2)
    assert time.monotonic() - start < 20


def test_at_the_limit_all_are_ended_and_named(tmp_path):
    code = INDEX + (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open(f'{tmp_path}/{{i}}', 'w').write(str(os.getpid()))\n"
        "if i == 1: sys.exit()\n"
        "print('waiting', flush=True); time.sleep(60)"
    )
    with pytest.raises(TimeoutError, match=r"\[0, 2\](.|\n)*\[2\] waiting"):
        run_workers(["-c", code], 3, timeout=3)
    for place in range(3):
        process = int((tmp_path / str(place)).read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize(
    ("command", "number"), [("train.py", 2), (["train.py"], 0), (["train.py"], 1.5)]
)
def test_wrong_launches_are_refused(command, number):
    with pytest.raises(ValueError, match="list of arguments"):
        run_workers(command, number)
