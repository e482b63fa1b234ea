"""Server processes that fail, are killed, or are asked to stop. Each test here starts its own process."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from deploycheck.serving import process, server
from deploycheck.serving.process import ServerFailed, ServerProcess
from deploycheck.serving.protocol import decode_response
from deploycheck.store import write_manifest
from tests.serving.asking import DEADLINE_S, as_json, connect, eventually, head, reply_on
from tests.serving.models import KEY, expected, flip_a_byte, write_artifact

READY = '{"event": "ready", "address": "http://127.0.0.1:9"}'


def fake_server(tmp_path: Path, code: str, **options: float) -> ServerProcess:
    """Return a process that isn't started yet, and that will run ``code`` instead of a server."""
    made = ServerProcess(tmp_path, [], tmp_path / "log", **options)
    made.command = [sys.executable, "-c", code]
    return made


def wait_for_the_end_of(pidfd: int) -> bool:
    """Wait until a process that is not a child of this one has ended; return whether it did by the deadline."""
    return bool(select.select([pidfd], [], [], DEADLINE_S)[0])


def turned_away(running: ServerProcess) -> bool:
    try:
        connect(running).close()
    except ConnectionError:  # refused, or reset by the listener as it closes
        return True
    return False


def refusal(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> dict[str, str]:
    """Run the server in this process on arguments it must refuse; return the one event it says."""
    parser = argparse.ArgumentParser()
    server.add_arguments(parser)
    assert server.run(parser.parse_args(arguments)) == 1
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert event.pop("event") == "failed"
    assert "Traceback" not in line
    return event


@pytest.mark.parametrize("name", ["weights.safetensors", "model.jax_export.gz"])
def test_a_server_with_a_flipped_byte_is_never_ready_and_names_the_file(tmp_path: Path, name: str) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    flip_a_byte(write_artifact(artifact) / name)
    damaged = ServerProcess(artifact, [], tmp_path / "log")
    with pytest.raises(ServerFailed, match=name), damaged:
        raise AssertionError("it was ready")
    assert damaged.address == ""
    assert damaged.process is not None
    assert damaged.process.returncode not in (None, 0)


def test_a_folder_that_is_not_an_artifact_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "manifest.json is missing" in refusal(capsys, [str(tmp_path)])["error"]
    assert "no such folder" in refusal(capsys, [str(tmp_path / "nowhere")])["error"]


def test_an_artifact_that_is_not_a_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artifact(tmp_path, kind="weights")
    assert "expected an exported model" in refusal(capsys, [str(tmp_path)])["error"]


def test_an_expired_model_is_refused_with_how_to_renew_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artifact(tmp_path)
    write_manifest(tmp_path, "model", KEY, {"loadable_until": date(2020, 1, 2).isoformat()})
    event = refusal(capsys, [str(tmp_path), "--port=0"])
    assert "could be loaded until 2020-01-02" in event["error"]
    assert "exports the model again" in event["hint"]


@pytest.mark.parametrize(
    ("meta", "signature", "says"),
    [
        ({"loadable_until": "soon"}, None, "loadable_until is 'soon', expected a date"),
        ({"loadable_until": 5}, None, "loadable_until is 5, expected a date"),
        ({}, "[]", "is not the signature of a model"),
        ({}, "{", "is not the signature of a model"),
        ({}, "{}", "is not the signature of a model"),
        ({}, '{"model": 1}', "is not the signature of a model"),
    ],
)
def test_a_model_whose_facts_are_not_what_they_should_be_is_refused_in_the_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], meta: dict[str, Any], signature: str | None, says: str
) -> None:
    write_artifact(tmp_path)
    if signature is not None:
        (tmp_path / "signature.json").write_text(signature)
    write_manifest(tmp_path, "model", KEY, meta)
    assert says in refusal(capsys, [str(tmp_path)])["error"]


def test_a_port_in_use_is_refused_with_what_to_do(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        event = refusal(capsys, [str(artifact), f"--port={port}"])
    assert f"127.0.0.1:{port}: can't listen" in event["error"]
    assert "choose another --port, or 0" in event["hint"]


def test_a_port_there_can_not_be_is_refused(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "70000" in refusal(capsys, [str(artifact), "--port=70000"])["error"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.0.0.1.example.org"])
def test_an_address_others_can_reach_needs_to_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    event = refusal(capsys, [str(tmp_path), f"--host={host}"])
    assert f"--host {host}: it would answer anyone" in event["error"]
    assert "--insecure" in event["hint"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machines_own_addresses_need_no_asking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    assert "manifest.json is missing" in refusal(capsys, [str(tmp_path), f"--host={host}"])["error"]


def test_a_connection_that_a_dying_server_closed_is_reported_as_its_end(tmp_path: Path) -> None:
    def ask() -> None:
        with fake_server(tmp_path, f"import time; print({READY!r}, flush=True); time.sleep(1000)") as running:
            assert running.process is not None
            os.kill(running.process.pid, signal.SIGKILL)
            raise aiohttp.ServerDisconnectedError

    with pytest.raises(ServerFailed, match="died with signal SIGKILL") as caught:
        ask()
    assert isinstance(caught.value.__context__, aiohttp.ServerDisconnectedError)


def test_a_killed_server_is_noticed_with_its_signal(tmp_path: Path) -> None:
    with fake_server(tmp_path, f"import time; print({READY!r}, flush=True); time.sleep(1000)") as running:
        running.check_alive()
        assert running.process is not None
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(DEADLINE_S)
        with pytest.raises(ServerFailed, match="died with signal SIGKILL"):
            running.check_alive()


def test_a_folder_with_modules_named_as_the_standard_librarys_can_be_served_from(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "queue", "socket"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    with ServerProcess(artifact, [], tmp_path / "log") as running:
        running.check_alive()


def test_requests_in_flight_are_finished_after_sigterm_and_it_exits_0(
    artifact: Path, tmp_path: Path, images: np.ndarray
) -> None:
    with ServerProcess(artifact, ["--max-batch=8"], tmp_path / "log") as running:
        assert running.process is not None
        body = as_json(images)
        connections = [connect(running) for _ in range(8)]
        for connection in connections:
            connection.sendall(head(Content_Length=len(body), Expect="100-continue"))
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it has begun to read the body
            connection.sendall(body[:50])
        running.process.terminate()
        assert eventually(lambda: turned_away(running))
        assert running.process.poll() is None
        for connection in connections:
            connection.sendall(body[50:])
        for connection in connections:
            reply = reply_on(connection)
            assert reply.status == 200
            found = decode_response(reply.headers, reply.body)["logits"]
            np.testing.assert_allclose(found, expected(images), rtol=1e-4, atol=1e-4)
            connection.close()
        assert running.process.wait(DEADLINE_S) == 0
        with pytest.raises(ServerFailed, match="died with exit code 0"):
            running.check_alive()


def test_a_killed_parent_leaves_no_server_behind(artifact: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from deploycheck.serving.process import ServerProcess\n"
        "with ServerProcess(Path(sys.argv[1]), ['--max-batch=1'], Path(sys.argv[2])) as running:\n"
        "    print(running.process.pid, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(artifact), str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        orphan = os.pidfd_open(pid)
        try:
            parent.kill()
            assert wait_for_the_end_of(orphan)
        finally:
            os.close(orphan)


def test_a_server_that_ends_before_it_is_ready_is_an_error_with_its_exit_code_and_last_lines(tmp_path: Path) -> None:
    failing = fake_server(tmp_path, "import sys; print('no memory', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ServerFailed, match=r"exit code 3 before it was ready; it last said:\s+no memory"), failing:
        raise AssertionError("it was ready")


def test_an_early_end_with_exit_code_0_is_a_failure_too(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="exit code 0 before it was ready"), fake_server(tmp_path, "pass"):
        raise AssertionError("it was ready")


def test_a_server_that_hangs_at_its_start_is_ended_by_the_deadline(tmp_path: Path) -> None:
    hung = fake_server(tmp_path, "import time; time.sleep(1000)", start_timeout_s=0.1)
    with pytest.raises(ServerFailed, match=r"not ready after 0\.1 s"), hung:
        raise AssertionError("it was ready")
    assert hung.process is not None
    assert hung.process.returncode == -signal.SIGTERM


def test_a_server_deaf_to_sigterm_is_killed_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.1)
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        f"print({READY!r}, flush=True); time.sleep(1000)\n"
    )
    with fake_server(tmp_path, code) as deaf:
        child = os.pidfd_open(int((tmp_path / "child").read_text()))
        try:
            assert deaf.stop() == -signal.SIGKILL
            assert wait_for_the_end_of(child)
        finally:
            os.close(child)


def test_a_server_is_ended_when_its_block_raises(tmp_path: Path) -> None:
    code = f"import time; print({READY!r}, flush=True); time.sleep(1000)"
    with pytest.raises(ZeroDivisionError), fake_server(tmp_path, code) as running:
        raise ZeroDivisionError
    assert running.process is not None
    assert running.process.returncode == -signal.SIGTERM
