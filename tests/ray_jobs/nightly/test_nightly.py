"""`ffaa nightly`: a night's RayJob is made once, followed, and tried again after 75 alone."""

import copy
import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffaa_core.cli import main
from ffaa_core.errors import ConfigurationError, JobError
from ray_jobs.nightly import kubernetes
from ray_jobs.nightly.kubernetes import Kubernetes
from ray_jobs.nightly.night import Night, exit_code, names, rayjob, scan
from tests.ray_jobs.nightly.kubernetes_api import RUNNING, SUCCEEDED, TOKEN, KubernetesApi, failed, serving

TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {
        "name": "ffaa-nightly",
        "uid": "of the template",
        "resourceVersion": "7",
        "labels": {"ffaa/part": "scan"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "finalizers": ["ray.io/rayjob-finalizer"],
    },
    "spec": {
        "suspend": True,
        "entrypoint": 'ffaa score "$FFAA_INPUT" "$FFAA_OUTPUT"',
        "backoffLimit": 0,
        "rayClusterSpec": {
            "enableInTreeAutoscaling": True,
            "workerGroupSpecs": [
                {"groupName": "crop", "replicas": 0, "maxReplicas": 1},
                {"groupName": "engine", "replicas": 0, "maxReplicas": 1},
            ],
        },
    },
    "status": {"jobDeploymentStatus": "Suspended"},
}
TONIGHT = Night(name="ffaa-nightly-20251121-1430", run="2025-11-21T14:30Z")


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Iterator[Callable[..., KubernetesApi]]:
    """Starts the stand-in with the ends of the RayJobs that will be made, one after the other."""
    started = []

    def start(*ends: dict[str, str]) -> KubernetesApi:
        context = serving(KubernetesApi(copy.deepcopy(TEMPLATE), *ends))
        started.append(context)
        return context.__enter__()

    yield start
    for context in started:
        context.__exit__(None, None, None)


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(TOKEN)
    return tmp_path


def client_of(server: KubernetesApi, account: Path) -> Kubernetes:
    """One that does not wait for long where the stand-in breaks."""
    return Kubernetes(server.url, "ffaa", account, patience_s=2)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "PAUSE_S", 0.001)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("ffaa-nightly-29395590", ("ffaa-nightly-20251121-1430", "2025-11-21T14:30Z")),
        ("again", ("again", "again")),
        ("ffaa-nightly-7", ("ffaa-nightly-7", "ffaa-nightly-7")),
        ("first-20261121", ("first-20261121", "first-20261121")),
    ],
)
def test_the_scheduled_time_names_rayjob_and_run(job: str, expected: tuple[str, str]) -> None:
    assert names(job) == expected


def test_a_rayjob_is_its_template_with_what_is_tonights() -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "ffaa-nightly-29395590", "uid": "u"}
    made = rayjob(
        TEMPLATE,
        Night(name="tonight", run="a run", workers={"engine": 8}, labels={"queue": "q"}, owner=owner),
        1,
    )
    assert made["metadata"] == {
        "name": "tonight",
        "labels": {"ffaa/part": "scan", "queue": "q"},
        "ownerReferences": [owner],
    }
    assert "status" not in made
    spec = made["spec"]
    assert spec["suspend"] is False
    assert spec["entrypoint"] == 'ffaa score "$FFAA_INPUT" "$FFAA_OUTPUT" --run \'a run\''
    crop, engine = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert (crop["replicas"], crop["maxReplicas"]) == (0, 1)
    assert (engine["replicas"], engine["maxReplicas"]) == (0, 8)
    assert TEMPLATE["spec"]["suspend"] is True


def test_without_autoscaling_all_workers_are_there_from_the_start() -> None:
    template = copy.deepcopy(TEMPLATE)
    template["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] = False
    made = rayjob(template, Night(name="n", run="r", workers={"engine": 8}), 1)
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["replicas"] == 8


def test_workers_of_an_unknown_group_and_too_long_a_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no worker group gpu; it has crop, engine"):
        rayjob(TEMPLATE, Night(name="n", run="r", workers={"gpu": 8}), 1)
    assert Night(name="n" * 47, run="r").attempt_name(1)
    with pytest.raises(ConfigurationError, match="49 characters"):
        Night(name="n" * 47, run="r").attempt_name(2)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({}, None),
        (RUNNING, None),
        ({"jobDeploymentStatus": "Suspended"}, None),
        ({"jobDeploymentStatus": "Initializing"}, None),
        (SUCCEEDED, 0),
        (failed(2), 2),
        (failed(3), 3),
        (failed(75), 75),
        (failed(1), 1),
        (failed(127), 127),
        (failed(-9), 75),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 75),
        ({"jobDeploymentStatus": "Failed", "reason": "JobStatusCheckTimeoutExceeded"}, 75),
        ({"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}, 75),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, 2),
        ({"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"}, 2),
    ],
)
def test_the_exit_code_is_found_in_the_status(status: dict[str, str], code: int | None) -> None:
    assert exit_code(status) == code


def test_ray_states_the_exit_code_in_these_words() -> None:
    from ray.dashboard.modules.job import job_supervisor

    source = " ".join(inspect.getsource(job_supervisor).split())
    assert '"Job entrypoint command " f"failed with exit code {return_code}' in source


@pytest.mark.parametrize(("end", "code"), [(SUCCEEDED, 0), (failed(2), 2), (failed(3), 3), (failed(75), 75)])
def test_a_night_ends_as_its_scan_did(
    api: Callable[..., KubernetesApi],
    account: Path,
    end: dict[str, str],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = api(end)
    assert scan(client_of(server, account), "ffaa-nightly", TONIGHT, 0.001) == code
    assert [made["metadata"]["name"] for made in server.created] == [TONIGHT.name]
    told = capsys.readouterr().out
    assert f"{TONIGHT.name} created, run {TONIGHT.run}" in told
    assert ("exit code" in told) == (code != 0)


def test_only_75_is_followed_by_another_attempt_and_that_of_the_same_run(
    api: Callable[..., KubernetesApi], account: Path
) -> None:
    server = api(failed(75), failed(75), failed(3))
    client = client_of(server, account)
    codes = [scan(client, "ffaa-nightly", TONIGHT, 0.001) for _ in range(5)]
    assert codes == [75, 75, 3, 3, 3]
    assert [made["metadata"]["name"] for made in server.created] == [
        "ffaa-nightly-20251121-1430",
        "ffaa-nightly-20251121-1430-2",
        "ffaa-nightly-20251121-1430-3",
    ]
    assert len({made["spec"]["entrypoint"] for made in server.created}) == 1


def test_whoever_was_evicted_follows_the_rayjob_that_is_there(
    api: Callable[..., KubernetesApi], account: Path
) -> None:
    server = api(SUCCEEDED)
    client = client_of(server, account)
    client.create(rayjob(TEMPLATE, TONIGHT, 1))
    assert scan(client, "ffaa-nightly", TONIGHT, 0.001) == 0
    assert len(server.created) == 1


def test_an_answer_that_got_lost_makes_no_second_rayjob(
    api: Callable[..., KubernetesApi], account: Path
) -> None:
    server = api(SUCCEEDED)
    client = client_of(server, account)
    client.create(rayjob(TEMPLATE, TONIGHT, 1))
    client.create(rayjob(TEMPLATE, TONIGHT, 1))
    assert len(server.created) == 1


def test_a_server_that_is_busy_or_away_is_asked_again(
    api: Callable[..., KubernetesApi], account: Path
) -> None:
    server = api(SUCCEEDED)
    server.refusals = [503, 429, 500]
    assert scan(client_of(server, account), "ffaa-nightly", TONIGHT, 0.001) == 0
    gone = Kubernetes("http://127.0.0.1:9", "ffaa", account, patience_s=0.01)
    with pytest.raises(JobError, match="does not answer"):
        gone.get("ffaa-nightly")


def test_what_kubernetes_refuses_is_told_with_its_reason(
    api: Callable[..., KubernetesApi], account: Path
) -> None:
    server = api()
    client = client_of(server, account)
    server.refusals = [403]
    with pytest.raises(
        ConfigurationError, match="cannot read RayJob a: Kubernetes says 403: refused with 403"
    ):
        client.get("a")
    server.refusals = [422]
    with pytest.raises(ConfigurationError, match="cannot create RayJob a: Kubernetes says 422"):
        client.create({"metadata": {"name": "a"}})


def test_a_renewed_token_is_used(api: Callable[..., KubernetesApi], account: Path) -> None:
    client = client_of(api(), account)
    (account / "token").write_text("expired")
    with pytest.raises(ConfigurationError, match="401"):
        client.get("ffaa-nightly")
    (account / "token").write_text(TOKEN)
    assert client.get("ffaa-nightly")


def test_without_a_template_nothing_is_made(api: Callable[..., KubernetesApi], account: Path) -> None:
    with pytest.raises(ConfigurationError, match="no RayJob other"):
        scan(client_of(api(), account), "other", TONIGHT, 0.001)


@pytest.mark.timeout(30)
def test_the_template_is_not_taken_for_tonights(api: Callable[..., KubernetesApi], account: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the job another"):
        scan(client_of(api(), account), "ffaa-nightly", replace(TONIGHT, name="ffaa-nightly"), 0.001)


def test_a_rayjob_that_is_deleted_meanwhile_is_told(api: Callable[..., KubernetesApi], account: Path) -> None:
    server = api(SUCCEEDED)
    client = client_of(server, account)

    class DeletedMeanwhile:
        def get(self, name: str) -> dict[str, Any] | None:
            if name in server.rayjobs and server.rayjobs[name].get("status") == RUNNING:
                del server.rayjobs[name]
            return client.get(name)

        def create(self, rayjob: dict[str, Any]) -> None:
            client.create(rayjob)

    with pytest.raises(JobError, match="was deleted while it ran"):
        scan(DeletedMeanwhile(), "ffaa-nightly", TONIGHT, 0.001)


def test_the_command_exits_with_75_on_sigterm_and_leaves_the_rayjob(
    api: Callable[..., KubernetesApi], account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = api(SUCCEEDED)
    monkeypatch.setattr(Kubernetes, "in_cluster", lambda: client_of(server, account))
    main_thread = threading.main_thread().ident
    assert main_thread
    server.when_followed = lambda: signal.pthread_kill(main_thread, signal.SIGTERM)
    arguments = ["--job=ffaa-nightly-29395590", "--job-uid=u", "--workers=engine=2", "--label=a=b"]
    assert main(["nightly", "ffaa-nightly", *arguments]) == 75
    [made] = server.created
    assert made["metadata"]["name"] == "ffaa-nightly-20251121-1430"
    assert made["metadata"]["labels"]["a"] == "b"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["maxReplicas"] == 2


def test_outside_of_a_pod_the_command_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["nightly", "ffaa-nightly", "--job", "tonight"]) == 2
    assert "no pod of Kubernetes" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--workers=engine", "--workers=engine=many", "--label=queue"])
def test_options_of_another_form_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nightly", "ffaa-nightly", "--job=tonight", option])
    assert option.partition("=")[2] in capsys.readouterr().err
