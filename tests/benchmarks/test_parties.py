import os
import subprocess
import sys
from typing import Any

from benchmarks.memory import family, proportional_bytes
from benchmarks.parties import draw, summary

MIB = 2**20


def test_memory_is_that_of_descendants_too_and_shared_pages_count_once() -> None:
    program = (
        "import os\n"
        f"held = b'x' * ({64 * MIB})\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.read(reading, 1)\n"
        "    os._exit(0)\n"
        "print(flush=True)\n"
        "input()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"\n"
        both = family(child.pid)
        assert len(both) == 2 and set(both) <= set(family(os.getpid()))
        assert 64 * MIB <= sum(map(proportional_bytes, both)) < 2 * 64 * MIB
    finally:
        child.communicate(b"\n")
    assert proportional_bytes(child.pid) == 0


def row(parties: int) -> dict[str, Any]:
    return {
        "parties": parties,
        "seconds_per_round": 0.02 * parties,
        "train_seconds_of_a_party": 0.01,
        "aggregate_seconds_of_a_party": 0.03,
        "peak_gib": 2.0 * parties**0.5,
        "server_mib": [400.0, 401.0],
    }


def test_the_summary_has_exponents_and_verdicts_of_the_most_parties(tmp_path: Any) -> None:
    rows = [row(parties) for parties in (2, 32, 256)]
    found = summary(rows)
    assert round(found["exponents_all"]["seconds_per_round"], 9) == 1
    assert round(found["exponents_from_32"]["peak_gib"], 9) == 0.5
    assert found["seconds_per_round"]["256"] == 5.12 and found["peak_gib"] == 32
    assert found["verdicts"]["seconds_per_round"]["met"] and not found["verdicts"]["peak_gib"]["met"]
    assert "verdicts" not in summary(rows[:2])
    draw(rows, tmp_path / "parties.png")
    assert (tmp_path / "parties.png").stat().st_size > 1000
