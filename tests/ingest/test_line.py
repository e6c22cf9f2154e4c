"""Blocks through worker processes: in order, a bounded number, and what becomes of a process that dies."""

import os
import signal
import time

import numpy as np
import pytest

from mlipdb.ingest import Frame
from mlipdb.ingest.blocks import FrameBlock, blocks
from mlipdb.ingest.line import WAITING, Line
from mlipdb.ingest.process import WorkerDied, WorkerProcess
from mlipdb.ingest.process_main import NICE
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.symmetry_worker import space_group_numbers
from mlipdb.ingest.work import Depth, Worker
from mlipdb.structures import make_structure
from mlipdb.testing.crashes import KILLER, SLEEPER, dangerous_search

CUBE = (True, True, True)


def block(number, *elements):
    frames = [
        Frame(
            structure=make_structure([element], [[0.0, 0.0, 0.0]], cell=np.eye(3) * 4.0, pbc=CUBE),
            label=None,
            external_id=f"{number}-{place}",
            material="m",
            location=f"frame {place}",
        )
        for place, element in enumerate(elements)
    ]
    return FrameBlock(f"file {number}", tuple(frames))


def line(*, workers=1, symprec=1e-2, search=space_group_numbers, patience=60.0):
    return Line(Worker(MptrjReader(), symprec, search), workers=workers, patience=patience, small=0)


def started(pipeline):
    """Until its processes have started, a line works in this one; hand in and take out blocks until they have."""
    while not pipeline.running():
        pipeline.put(block(-1, 84), Depth.CHECK)
        pipeline.take()
        time.sleep(0.02)
    return pipeline


def names(done):
    return [record.external_id for record in done.prepared]


def groups(done):
    return [record.space_group and record.space_group.number for record in done.prepared]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_blocks_come_out_in_the_order_they_went_in(workers):
    with line(workers=workers) as pipeline:
        if workers:
            started(pipeline)
        for number in range(12):
            pipeline.put(block(number, *[84] * (40 if number % 3 == 0 else 1)), Depth.WHOLE)
        found = [pipeline.take()[0] for _ in range(12)]
    assert [done.file for done in found] == [f"file {number}" for number in range(12)]
    assert names(found[1]) == ["1-0"]
    assert groups(found[0]) == [221] * 40


def test_the_number_of_blocks_under_way_is_bounded():
    with started(line(workers=2)) as pipeline:
        count = 0
        while not pipeline.full:
            pipeline.put(block(count, 84), Depth.HASH)
            count += 1
        assert count == 2 * WAITING
        pipeline.take()
        assert not pipeline.full


def test_a_block_that_was_only_hashed_can_be_put_back_for_the_whole_work_and_those_behind_it_follow():
    with started(line()) as pipeline:
        for number in range(4):
            pipeline.put(block(number, 84), Depth.HASH)
        first, again = pipeline.take()
        assert not first.prepared
        pipeline.put_back(again)
        found = [pipeline.take()[0] for _ in range(4)]
    assert [names(done) for done in found] == [["0-0"], ["1-0"], ["2-0"], ["3-0"]]


def test_a_waiting_block_holds_no_text_of_a_file_that_can_be_read_again_and_can_be_put_back(mptrj_file, record):
    names_in_file = [f"mp-1-0-{number}" for number in range(3)]
    path = mptrj_file({"mp-1": {name: record(shift=number / 64) for number, name in enumerate(names_in_file)}})
    [whole] = blocks(MptrjReader(), path, file=path.name, options={})
    with started(line()) as pipeline:
        pipeline.put(whole, Depth.HASH)
        done, again = pipeline.take()
        assert [item.external_id for item in done.items] == names_in_file
        assert [size for *_, size in again.records] == [len(text) for *_, text in whole.records]
        pipeline.put_back(again)
        assert names(pipeline.take()[0]) == names_in_file


def test_worker_processes_leave_the_one_that_writes_its_turn():
    with started(line()) as pipeline:
        (worker,) = pipeline.running()
        own, theirs = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (os.getpid(), worker.pid))
        assert theirs == min(own + NICE, 19)


def test_a_search_that_kills_or_hangs_its_process_costs_only_the_crystal_that_did_it():
    with started(line(search=dangerous_search, patience=5.0)) as pipeline:
        for number, elements in enumerate([(84, KILLER), (84,), (SLEEPER, 84), (84,)]):
            pipeline.put(block(number, *elements), Depth.WHOLE)
        found = [groups(pipeline.take()[0]) for _ in range(4)]
    assert found == [[221, None], [221], [None, 221], [221]]


def test_a_process_that_is_killed_is_named_with_the_place_it_was_at():
    with started(line(search=dangerous_search)) as pipeline:
        pipeline.put(block(7, SLEEPER), Depth.WHOLE)
        (victim,) = pipeline.running()
        os.kill(victim.pid, signal.SIGKILL)
        match = rf"worker process {victim.pid} was ended by signal 9 \(SIGKILL\).*memory.*at file 7, frame 0.*--workers"
        with pytest.raises(WorkerDied, match=match):
            pipeline.take()


def test_processes_end_with_the_line():
    with started(line(workers=2)) as pipeline:
        pids = [process.pid for process in pipeline.running()]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_error_in_a_process_comes_back_as_its_traceback():
    with WorkerProcess(float) as process:
        process.submit("no number")
        with pytest.raises(Exception, match=r"could not convert string to float: 'no number'"):
            process.result(60.0)
        process.submit("1.5")
        assert process.result(60.0) == 1.5
