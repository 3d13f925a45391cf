"""Workers come from a server that has loaded their libraries, not from the process that wants them."""

import os
import sys
import tempfile

from pipeline import forkserver


def _parent(pipe) -> None:
    pipe.send(os.getppid())


def test_where_the_server_cannot_listen_a_worker_starts_anew(tmp_path, monkeypatch):
    folder = tmp_path / ("a long name of a folder of a job " * 3)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    forkserver.begin()
    with forkserver.context() as context:
        ours, theirs = context.Pipe()
        process = context.Process(target=_parent, args=(theirs,))
        process.start()
    theirs.close()
    assert ours.recv() == os.getpid()
    process.join()


def _facts(pipe) -> None:
    loaded = {"torch", "av", "cv2", "pipeline.workers"} & sys.modules.keys()
    pipe.send((os.getppid(), loaded, os.environ["OMP_NUM_THREADS"], len(os.listdir("/proc/self/task"))))


def test_a_worker_finds_its_libraries_loaded_and_runs_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    forkserver.begin()
    servers = set()
    for _ in range(2):
        with forkserver.context() as context:
            ours, theirs = context.Pipe()
            process = context.Process(target=_facts, args=(theirs,))
            process.start()
        theirs.close()
        server, loaded, threads, running = ours.recv()
        process.join()
        servers.add(server)
        assert loaded == {"torch", "av", "cv2", "pipeline.workers"}
        assert (threads, running) == ("1", 1)
    assert len(servers) == 1
    assert os.getpid() not in servers
    assert os.environ["OMP_NUM_THREADS"] == "7"
