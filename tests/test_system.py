"""Files that are never half written, on disks without locks or links, full or forbidden."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from small_run import start
from workbench import ENV, REPO

from tok1d.runs import Run, RunError
from tok1d.system import files, launch
from tok1d.system.files import machine, remove_abandoned, replacing
from tok1d.system.processes import locked
from tok1d.training.checkpoints import writable
from tok1d.training.train import train


def refuse(number: int):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


# ---- disks that lack something ----


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EPERM])
def test_without_links_training_copies_its_checkpoint(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", refuse(number))
    run, images, tokenizer, config = start(tmp_path, steps=3, checkpoint_every=1)
    train(run, images, tokenizer, config)
    assert (run / "previous.ckpt").exists() and (run / "last.ckpt").exists() and run.has_model


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EIO])
def test_without_locks_training_goes_on_and_says_so_once(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    run, images, tokenizer, config = start(tmp_path, steps=2)
    train(run, images, tokenizer, config)
    with run.lock():
        pass
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "without locks" in line]
    assert str(run.path) in line and os.strerror(number).lower() in line and run.has_model


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_has_is_not_taken_for_none(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    with open(tmp_path / "lock", "w") as handle:
        assert not locked(handle)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EROFS, "mount it for writing"),
        (errno.EACCES, "give yourself the right"), (errno.EPERM, "give yourself the right"),
        (errno.EIO, "mend"),
    ],
)  # fmt: skip
def test_only_a_full_disk_is_told_to_make_room(tmp_path, number, says):
    with pytest.raises(RunError) as caught, writable(Run(tmp_path), "the model"):
        raise RuntimeError("torch's words") from OSError(number, "")
    text = str(caught.value)
    assert says in text and os.strerror(number).lower() in text and "\n" not in text
    assert ("make room" in text) == (says == "make room")


def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "shut").mkdir(mode=0o500)
    words = [sys.executable, "-m", "tok1d.cli", "train", "-p", f"outputs={tmp_path}/shut"]
    result = subprocess.run(words, cwd=REPO, env=ENV, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "the right to write" in result.stderr


def test_a_checkpoint_that_cannot_be_opened_says_why(tmp_path, monkeypatch):
    run, images, tokenizer, config = start(tmp_path, steps=2)
    put = files._put
    monkeypatch.setattr(
        files, "_put", lambda a, b: (refuse(errno.EROFS) if b.suffix == ".ckpt" else put)(a, b)
    )
    with pytest.raises(RunError, match=r"step 0 cannot be written to .* \(read-only file system\): mount it"):
        train(run, images, tokenizer, config)
    assert not [path for path in run.path.iterdir() if path.suffix == ".tmp"]


# ---- replacing files and folders ----


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_whole(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    for text in ("old", "new"):
        with replacing(tmp_path / "folder") as temporary:
            (temporary / "below").mkdir(parents=True)
            (temporary / "below" / text).write_text(text)
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "below", "new"]
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "below", "new"]


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("kept")
    with pytest.raises(OSError), replacing(tmp_path / "folder") as temporary:
        temporary.write_text("a page")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "mine"]


def test_a_linked_folder_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("")
    assert (tmp_path / "folder").is_symlink() and (tmp_path / "elsewhere" / "new").exists()


DEAD = 2**22 + 1  # no process has such a number


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    long_ago = time.time() - 2 * files.DAY
    gone = [
        f".last.ckpt.{machine()}-{DEAD}.tmp",
        f".model.{machine()}-{DEAD}.tmp",
        f".x.{machine()}-{DEAD}.old",
    ]
    other_host, earlier = ".last.ckpt.00c0ffee-17.tmp", ".last.ckpt.4711.tmp"
    alive = [f".last.ckpt.{machine()}-{os.getppid()}.tmp", ".other.4711.tmp", ".mine.tmp", "last.ckpt.1.tmp"]
    for name in (*gone, other_host, earlier, *alive, "x"):
        (tmp_path / name).write_text("")
    shutil.move(tmp_path / gone[1], tmp_path / "file")
    (tmp_path / gone[1]).mkdir()
    (tmp_path / "file").rename(tmp_path / gone[1] / "weights")
    remove_abandoned(tmp_path, "last.ckpt")
    assert {p.name for p in tmp_path.iterdir()} == {other_host, earlier, *alive, "x"}
    for name in (other_host, earlier, *alive):
        os.utime(tmp_path / name, (long_ago, long_ago))
    with replacing(tmp_path / "last.ckpt") as temporary:
        temporary.write_text("")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", *alive, "x"}


def test_a_folder_put_aside_by_a_killed_writer_comes_back(tmp_path):
    aside = tmp_path / f".recon.{machine()}-{DEAD}.old"
    aside.mkdir()
    (aside / "original_0.png").write_text("")
    with replacing(tmp_path / "anything") as temporary:
        temporary.write_text("")
    assert (tmp_path / "recon" / "original_0.png").exists() and not aside.exists()


# ---- records ----


def test_a_damaged_line_of_records_drops_no_other(tmp_path):
    run = Run(tmp_path)
    damaged = [b'{"step": 2, "lo', b"\0\0\0\xff", b"null", b"[1]", b'{"loss": 1}', b'{"step": "2"}', b""]
    for i, line in enumerate(damaged):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n{"step": 4}\n')
        assert [r["step"] for r in run.metrics] == [1, 3, 4], damaged[i]
        assert [r["step"] for r in run.metrics_until(3)] == [1, 3]
    run.keep_metrics(3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_a_record_after_half_a_line_is_whole(tmp_path):
    (tmp_path / "timings.jsonl").write_text('{"step": 1}\n{"step": 2, "im')
    run = Run(tmp_path)
    for step in (3, 4):
        run.log("timings.jsonl", {"step": step})
    assert [r["step"] for r in run.timings] == [1, 3, 4]


def test_a_port_in_use_is_passed_over(monkeypatch):
    free = launch.free_port()
    assert 15_000 <= free < 30_000  # systems hand out others, while torch is imported
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        drawn = iter([taken.getsockname()[1] - 15_000, free - 15_000])
        monkeypatch.setattr(launch.secrets, "randbelow", lambda below: next(drawn))
        assert launch.free_port() == free
