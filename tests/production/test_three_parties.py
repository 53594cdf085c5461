"""Three parties, each a process and a Ray of its own, over TLS, by the commands of docs/production.md.

One run is looked at from all sides: while the parties wait after their training, what they listen on and what
a stranger can do; afterwards what they have learned and what they have left.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch

from tests.production import own_numbers
from tests.production.network import PARTIES, loopback, namespaces
from tests.production.observed import GUIDE, SETTINGS, Seen, leaks, observe

pytestmark = [pytest.mark.production, pytest.mark.slow]


@pytest.fixture(scope="module", params=["loopback", pytest.param("namespaces", marks=pytest.mark.namespaces)])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    with ExitStack() as stack:
        network, why_not = loopback(), "The parties are on loopback"
        if request.param == "namespaces":
            try:
                network = stack.enter_context(namespaces())
            except PermissionError as error:
                why_not = str(error)
        return observe(tmp_path_factory.mktemp(request.param), network, why_not)


def test_all_parties_train_to_the_end_over_tls(seen: Seen) -> None:
    assert seen.status == dict.fromkeys(PARTIES, 0)
    histories = [json.loads((seen.home / party / "history.json").read_text()) for party in PARTIES]
    for history in histories:  # every driver has a clock of its own
        assert history.pop("seconds") and history.pop("evaluate_seconds")
    assert histories[0] == histories[1] == histories[2]
    assert histories[0]["density"] == pytest.approx([0.6, 0.5], abs=1e-3)
    for party in PARTIES:
        saved = torch.load(seen.home / party / "model")["model_state_dict"]
        living = sum(int((saved[f"{layer}.weight"] != 0).sum()) for layer in ("conv1", "fc"))
        assert living == round(1947 * histories[0]["density"][-1])


def test_a_blind_server_is_told_no_rows_losses_metrics_or_densities_and_stops_with_the_parties(
    seen: Seen,
) -> None:
    histories, told = (
        {party: json.loads((seen.home / party / "blind" / name).read_text()) for party in PARTIES}
        for name in ("history.json", "told.json")
    )
    assert set(histories["carol"]) == {"seconds", "evaluate_seconds", "payload_bytes"}
    assert told["carol"]["floats"] == [] and set(told["carol"]["kinds"]) <= {"str"}
    for party in ("alice", "bob"):  # what was looked for is there
        assert histories[party]["loss"][0] > 0 and 0 < histories[party]["density"][0] < 1
        assert 0 <= histories[party]["val_multiclassaccuracy"][0] <= 1
        assert any(
            number == pytest.approx(histories[party]["density"][0]) for number in told[party]["floats"]
        )
        assert SETTINGS["rows"] in told[party]["integers"]
    assert SETTINGS["rows"] not in told["carol"]["integers"]
    for history in histories.values():  # stopped after the first of two epochs
        assert len(history["payload_bytes"]) == 1 < SETTINGS["epochs"]


def test_a_partys_driver_is_told_its_own_numbers_and_totals_and_no_other_partys(
    seen: Seen, ray_devices: SimpleNamespace
) -> None:
    parties = [getattr(ray_devices, party) for party in PARTIES]
    simulated = own_numbers.train(ray_devices.carol, parties)
    found = {party: json.loads((seen.home / party / "own_numbers.json").read_text()) for party in PARTIES}
    no_total = {"multiclassauroc", "val_multiclassauroc"}
    for party, own in found.items():
        assert {name.split("_")[0] for name in own["local"]} == {party}
        assert set(own["local"]) == {name for name in simulated["local"] if name.startswith(f"{party}_")}
        assert set(simulated["global"]) - set(own["global"]) == no_total
        for name in ("loss", "multiclassaccuracy", "val_multiclassaccuracy", "density"):
            assert own["global"][name] == pytest.approx(simulated["global"][name], abs=1e-4)
        for name in (f"{party}_loss", f"{party}_val_eval_multiclassauroc"):
            assert own["local"][name] == pytest.approx(simulated["local"][name], abs=1e-4)
        accuracy = simulated["evaluated"]["val_multiclassaccuracy"]
        assert own["evaluated"] == {"val_multiclassaccuracy": pytest.approx(accuracy, abs=1e-4)}
        assert own["evaluated own"] == {party: pytest.approx(simulated["evaluated own"][party], abs=1e-4)}
        for name in no_total:
            assert seen.output[party].count(f" {name} of all parties together: not told") == 1
        for rows, other in zip(own_numbers.ROWS, PARTIES, strict=True):
            losses = set(found[other]["local"][f"{other}_loss"])
            if other == party:  # what was looked for is there
                assert rows in own["told"]["integers"] and losses <= set(own["told"]["floats"])
            else:
                assert rows not in own["told"]["integers"] and not losses & set(own["told"]["floats"])


def test_a_party_whose_rows_do_not_fit_ends_the_fit_everywhere_and_tells_its_own_driver_alone_why(
    seen: Seen,
) -> None:
    told = {
        party: json.loads((seen.home / party / "own_numbers.json").read_text())["refused"]
        for party in PARTIES
    }
    rows = own_numbers.ROWS[0]
    assert told["alice"].startswith(f"batch_size must be at most {rows}, the rows of alice, got {rows + 1}")
    assert str(rows) not in told["bob"] + told["carol"]


def test_averages_and_sums_travel_under_the_list_of_what_may(seen: Seen) -> None:
    for party in PARTIES:
        average, whole_average, total, whole_total = json.loads((seen.home / party / "sums.json").read_text())
        assert average == pytest.approx([7 / 3, 7 / 3, 0], abs=1e-4) and total == pytest.approx(
            [15] * 3, abs=1e-4
        )
        assert whole_average == pytest.approx([7 / 3] * 2) and whole_total == [15, 15]


def test_keys_are_signed_by_the_pinned_identities_and_have_one_fingerprint(seen: Seen) -> None:
    told = [json.loads((seen.home / party / "fingerprints.json").read_text()) for party in PARTIES]
    assert len(told[0]) == len(PARTIES) and len({digits for each in told for digits in each}) == 1


def test_parties_listen_on_loopback_and_at_the_address_of_the_cluster_file_alone(seen: Seen) -> None:
    for party, found in seen.listening.items():
        host, port = seen.network.addresses[party].split(":")
        others = set(found) - {(host, int(port))}
        print(party, sorted(found.items()))
        assert (host, int(port)) in found
        assert all(address == "127.0.0.1" for address, _ in others), others


def test_every_listening_process_is_named_in_the_guide(seen: Seen) -> None:
    for found in seen.listening.values():
        for name in found.values():
            kind = "ray::" if name.startswith("ray::") else name
            assert kind in ("gcs_server", "raylet", "ray::", "python") and kind in GUIDE, name


def test_a_stranger_on_the_machine_runs_nothing_in_a_partys_ray(seen: Seen) -> None:
    assert seen.attacks == {"without": "refused, nothing", "with": "looked, nothing"}


def test_no_secret_is_shown_or_left_where_others_can_read_it(seen: Seen) -> None:
    assert seen.leaks == [] and seen.open_files == []
    for name, text in seen.output.items():
        assert "PRIVATE KEY" not in text and not any(line.decode() in text for line in seen.secrets), name
    own = {path for party in PARTIES for path in seen.home.glob(f"{party}-keys/*.pem")}
    own |= set(seen.home.glob("authority/*.pem"))
    assert leaks(seen, [path for path in seen.home.rglob("*") if path not in own]) == []
    for party in PARTIES:
        for path in (seen.home / party, *(seen.home / party).rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


def test_no_process_is_left(seen: Seen) -> None:
    assert seen.left_over == {}


def test_a_poisoned_message_makes_nothing_with_and_without_a_certificate(seen: Seen) -> None:
    assert seen.poisoned == {
        "plain": "refused, nothing",
        "without": "refused, nothing",
        "with": "taken, nothing",
    }


def test_a_stranger_on_the_network_reaches_one_port_of_a_party(seen: Seen) -> None:
    if not seen.network.namespaces:
        pytest.skip(f"not tested: what other machines reach. {seen.why_not}")
    for party, address in seen.network.addresses.items():
        assert len(seen.listening[party]) > 3
        assert seen.reached[party] == [int(address.split(":")[1])]
