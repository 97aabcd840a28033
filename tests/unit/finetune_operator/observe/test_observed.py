"""What is asked of the observed objects."""

from finetune_operator.observe.observed import Child, Observed
from support.operator.values import UID


def test_an_attempts_workload_is_the_one_that_makes_its_pods() -> None:
    lease = Child("Lease", "bot-a1", "lease", UID, 1, deleting=False)
    job = Child("PyTorchJob", "bot-a1", "job", UID, 1, deleting=False, workload=True)
    later = Child("PyTorchJob", "bot-a2", "later", UID, 2, deleting=False, workload=True)
    strange = Child("PyTorchJob", "bot-a1", "x", "deleted-job", 1, False, workload=True)
    observed = Observed(children=(lease, strange, later, job))
    assert observed.workload(UID, 1) is job
    assert observed.workload(UID, 2) is later
    assert observed.workload(UID, 3) is None
