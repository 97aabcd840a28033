"""Every reason a job can give, in one table: exit code, what happens next, what the user can do.

Status, docs and diagnosis read this table; nothing else maps exit codes or decides about retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why an attempt or a job ended, or what it waits for."""

    # Not a failure.
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    STOPPING = "Stopping"
    # The job file.
    INVALID_SPEC = "InvalidSpec"
    INVALID_RUN_CONFIG = "InvalidRunConfig"
    # The user's inputs.
    DATA_NOT_FOUND = "DataNotFound"
    DATA_INVALID = "DataInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    ACCESS_DENIED = "AccessDenied"
    CREDENTIALS_INVALID = "CredentialsInvalid"
    STORAGE_UNSUPPORTED = "StorageUnsupported"
    STORAGE_REFUSED = "StorageRefused"
    SUPERSEDED = "Superseded"
    NON_FINITE_LOSS = "NonFiniteLoss"
    OUTPUT_NOT_FOUND = "OutputNotFound"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    DEVICE_UNSUPPORTED = "DeviceUnsupported"
    ADAPTER_MISMATCH = "AdapterMismatch"
    INPUT_CHANGED = "InputChanged"
    REWARD_INVALID = "RewardInvalid"
    REWARD_FAILED = "RewardFailed"
    NOTHING_TO_LEARN = "NothingToLearn"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    # The machines.
    OUT_OF_MEMORY = "OutOfMemory"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    VERIFICATION_FAILED = "VerificationFailed"
    DISTRIBUTED_FAILURE = "DistributedFailure"
    INTERRUPTED = "Interrupted"
    DISK_FULL = "DiskFull"
    NODE_LIMIT = "NodeLimit"
    STALLED = "Stalled"
    DEVICE_FAILED = "DeviceFailed"
    REWARD_UNAVAILABLE = "RewardUnavailable"
    ROLLOUT_UNAVAILABLE = "RolloutUnavailable"
    TRAINER_ERROR = "TrainerError"
    # What only the cluster sees.
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    CONTAINER_REFUSED = "ContainerRefused"
    UNSCHEDULABLE = "Unschedulable"
    QUEUED = "Queued"
    POD_REFUSED = "PodRefused"
    NOT_STARTING = "NotStarting"
    START_TIMEOUT = "StartTimeout"
    INIT_FAILED = "InitFailed"
    POD_LOST = "PodLost"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    RESULT_LOST = "ResultLost"
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    BACKEND_REFUSED = "BackendRefused"
    NAME_TAKEN = "NameTaken"
    OPERATOR_FORBIDDEN = "OperatorForbidden"
    OPERATOR_ERROR = "OperatorError"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class Retry(StrEnum):
    """What follows when an attempt ends with a reason."""

    NEVER = "Never"
    COUNTED = "Counted"  # uses up one of runPolicy.maxAttempts
    LESS_MEMORY = "LessMemory"  # counted; the next one takes less memory, for the same adapter
    INFRASTRUCTURE = "Infrastructure"  # does not use up maxAttempts; has a cap of its own
    WAIT = "Wait"  # the job goes on by itself once the cause is gone
    NONE = "None"  # not a failure


@dataclass(frozen=True)
class Row:
    """One line of the table. `exit_code` is None where no process of ours ends with this reason."""

    retry: Retry
    exit_code: int | None
    meaning: str
    advice: str
    once_begun: Retry | None = None  # instead of `retry`, once the job has done an optimizer step


TABLE: dict[Reason, Row] = {
    Reason.SUCCEEDED: Row(Retry.NONE, 0, "The verified adapter is in object storage.", ""),
    Reason.SUSPENDED: Row(
        Retry.NONE, None, "The user suspended the job.", "Set spec.runPolicy.suspend to false."
    ),
    Reason.PENDING: Row(Retry.NONE, None, "The attempt's pods have not started yet.", ""),
    Reason.RUNNING: Row(Retry.NONE, None, "The trainer is at work; see status.progress.", ""),
    Reason.RETRYING: Row(Retry.NONE, None, "An attempt ended; the next one is on its way.", ""),
    Reason.STOPPING: Row(
        Retry.NONE,
        None,
        "The old attempt's pods are being removed; what outlasts their grace is named.",
        "",
    ),
    Reason.INVALID_SPEC: Row(
        Retry.NEVER,
        None,
        "The FineTuneJob breaks a rule of its schema, or names what the operator's chart forbids.",
        "Correct the fields named; `finetune validate FILE` checks a file without a cluster.",
    ),
    Reason.INVALID_RUN_CONFIG: Row(
        Retry.NEVER,
        10,
        "The trainer does not understand its configuration.",
        "Use a trainer image of the operator's own version (spec.workers.image).",
    ),
    Reason.DATA_NOT_FOUND: Row(
        Retry.NEVER,
        11,
        "A data file does not exist.",
        "Correct spec.data.train[].uri, or upload the file.",
        once_begun=Retry.COUNTED,
    ),
    Reason.DATA_INVALID: Row(
        Retry.NEVER,
        12,
        "A row of the data can not be trained on.",
        "Correct the rows named by file and line.",
        once_begun=Retry.COUNTED,
    ),
    Reason.MODEL_NOT_FOUND: Row(
        Retry.NEVER,
        13,
        "The base model does not exist at its URI and revision.",
        "Correct spec.model.uri and spec.model.revision.",
        once_begun=Retry.COUNTED,
    ),
    Reason.MODEL_UNSUPPORTED: Row(
        Retry.NEVER,
        14,
        "The base model can not be trained as asked.",
        "Read the message: it names what the model lacks and which field to change.",
    ),
    Reason.ACCESS_DENIED: Row(
        Retry.NEVER,
        15,
        "The store refused the credentials.",
        "Check the keys in the Secret named by the credentialsSecretRef in the message, or the "
        "rights of the ServiceAccount's identity where it names no keys.",
        once_begun=Retry.COUNTED,
    ),
    Reason.CREDENTIALS_INVALID: Row(
        Retry.NEVER,
        37,
        "A value in a Secret can not be what its key is for.",
        "Correct the key that the message names; its value is never shown.",
        once_begun=Retry.COUNTED,
    ),
    Reason.STORAGE_UNSUPPORTED: Row(
        Retry.NEVER,
        16,
        "The store does not honour conditional writes.",
        "Use a store with If-Match and If-None-Match on PUT for spec.output.uri.",
    ),
    Reason.STORAGE_REFUSED: Row(
        Retry.NEVER,
        38,
        "The store refused a request that it would refuse again.",
        "Look up the store's error code in the message; check the URI and AWS_ENDPOINT_URL.",
        once_begun=Retry.COUNTED,
    ),
    Reason.SUPERSEDED: Row(
        Retry.NEVER,
        17,
        "Another job or a later attempt claimed the output.",
        "Give each job an output.uri of its own.",
    ),
    Reason.NON_FINITE_LOSS: Row(
        Retry.NEVER,
        18,
        "The loss or the gradient became NaN or infinite.",
        "Lower training.learningRate, or use precision FP32; the message names step and batch.",
    ),
    Reason.OUTPUT_NOT_FOUND: Row(
        Retry.NEVER,
        19,
        "The bucket or directory to publish to does not exist.",
        "Create it, or correct spec.output.uri.",
        once_begun=Retry.COUNTED,
    ),
    Reason.INSUFFICIENT_MEMORY: Row(
        Retry.NEVER,
        26,
        "By the estimate the job can not fit into its devices; no weights were downloaded.",
        "Change what the message names: it says what would make the job fit.",
        once_begun=Retry.COUNTED,
    ),
    Reason.DEVICE_UNSUPPORTED: Row(
        Retry.NEVER,
        27,
        "The GPU asked for is not there, or can not compute in the number format asked for.",
        "Update the node's driver or choose another workers.image where the message names them; "
        "else change training.precision or lora.quantization, or ask for another GPU.",
        once_begun=Retry.COUNTED,
    ),
    Reason.ADAPTER_MISMATCH: Row(
        Retry.NEVER,
        28,
        "The adapter of model.initFrom does not fit the job.",
        "Name a published adapter of the same base model, rank and targets, or change those.",
        once_begun=Retry.COUNTED,
    ),
    Reason.INPUT_CHANGED: Row(
        Retry.COUNTED,
        36,
        "The model, a data file, a reward or the adapter of model.initFrom is another than at the "
        "newest checkpoint or at the attempt's start; or someone changed the attempt's ConfigMap.",
        "Put back what the message names: the next attempt goes on from the checkpoint. To train "
        "on what is there now, create the job anew.",
    ),
    Reason.REWARD_INVALID: Row(
        Retry.NEVER,
        30,
        "A reward can not be used: its code does not load, or a column that it needs is missing.",
        "Correct what the message names and create the job again; `finetune reward test` shows it "
        "on a laptop.",
        once_begun=Retry.COUNTED,
    ),
    Reason.REWARD_FAILED: Row(
        Retry.NEVER,
        31,
        "A reward failed on as many completions in a row as its failAfter allows.",
        "Read the errors in the message; mend the reward, or set its onError to Mask.",
    ),
    Reason.NOTHING_TO_LEARN: Row(
        Retry.NEVER,
        32,
        "For grpo.nothingToLearnSteps steps no group of completions had anything to learn from.",
        "Do what the message says of the reward or of rollout.maxTokens that it names.",
    ),
    Reason.SANDBOX_UNAVAILABLE: Row(
        Retry.NEVER,
        34,
        "The node's kernel can not confine the process that runs a reward's code.",
        "Create the job again on nodes with seccomp and Landlock (Linux 5.13), or with "
        "allowUnconfined for code that you trust.",
        once_begun=Retry.COUNTED,
    ),
    Reason.OUT_OF_MEMORY: Row(
        Retry.LESS_MEMORY,
        20,
        "The process ran out of memory.",
        "Lower training.sequenceLength, raise memory.zeroStage, ask for more memory in "
        "workers.resources, or take GPUs with more.",
    ),
    Reason.STORAGE_UNAVAILABLE: Row(
        Retry.INFRASTRUCTURE,
        21,
        "The store did not answer in time.",
        "Check the store and AWS_ENDPOINT_URL in its Secret.",
        once_begun=Retry.WAIT,
    ),
    Reason.VERIFICATION_FAILED: Row(
        Retry.COUNTED,
        22,
        "What was read back is not what was published.",
        "Check the store's integrity; the message names the file.",
    ),
    Reason.DISTRIBUTED_FAILURE: Row(
        Retry.INFRASTRUCTURE,
        23,
        "The processes lost each other.",
        "Look at the first failing rank; check the network between the nodes.",
    ),
    Reason.INTERRUPTED: Row(
        Retry.INFRASTRUCTURE,
        24,
        "The pod was told to stop.",
        "Nothing: the next attempt goes on from its checkpoint.",
    ),
    Reason.DISK_FULL: Row(
        Retry.COUNTED,
        25,
        "The node's disk is full, or the pod took more of it than its limit allows.",
        "Raise resources.limits.ephemeral-storage, or give model.cache a larger volume.",
    ),
    Reason.NODE_LIMIT: Row(
        Retry.COUNTED,
        39,
        "A limit of the node was reached: of locked or shared memory, of open files, of threads.",
        "Raise the limit that the message names, on the node or in workers.resources; less batch "
        "or disk changes nothing.",
    ),
    Reason.STALLED: Row(
        Retry.COUNTED,
        40,
        "No process made any progress for runPolicy.stallTimeoutSeconds.",
        "Read where the message says they stand; their stacks are in the pod's log and in the "
        "bucket, unless the pod itself was frozen: look at its node then. Raise "
        "runPolicy.stallTimeoutSeconds if they were only slow.",
    ),
    Reason.DEVICE_FAILED: Row(
        Retry.INFRASTRUCTURE,
        29,
        "A GPU reported a fault of its own.",
        "Look at the node's GPU (Xid errors in its kernel log); cordon the node if it happens "
        "again.",
    ),
    Reason.REWARD_UNAVAILABLE: Row(
        Retry.COUNTED,
        33,
        "A reward's service or runner was away too long, or its code took too long to load.",
        "Bring the service back, or make the code load faster; the next attempt goes on from the "
        "checkpoint.",
    ),
    Reason.ROLLOUT_UNAVAILABLE: Row(
        Retry.COUNTED,
        35,
        "The server that draws completions does not answer, or refused the adapter.",
        "Check the server of grpo.rollout.uri and that it shares rollout.adapterDirectory.",
    ),
    Reason.TRAINER_ERROR: Row(
        Retry.COUNTED,
        1,
        "The trainer failed in a way it does not know.",
        "Read the frames in the message and the pod's log.",
    ),
    Reason.SECRET_NOT_FOUND: Row(
        Retry.WAIT,
        None,
        "A Secret that the job names does not exist.",
        "Create the Secret, or correct the credentialsSecretRef.",
    ),
    Reason.VOLUME_UNAVAILABLE: Row(
        Retry.WAIT,
        None,
        "A volume can not be mounted.",
        "Create the claim or ConfigMap named in the message, or correct workers.volumes.",
    ),
    Reason.IMAGE_UNAVAILABLE: Row(
        Retry.WAIT,
        None,
        "The image can not be pulled.",
        "Correct workers.image, or give the ServiceAccount an imagePullSecret.",
    ),
    Reason.CONTAINER_REFUSED: Row(
        Retry.WAIT,
        None,
        "The node can not make a container of the pod.",
        "Correct workers.image as the message says, or have the node looked at.",
    ),
    Reason.UNSCHEDULABLE: Row(
        Retry.WAIT,
        None,
        "No node has room for a pod.",
        "Wait for room, or correct workers.resources, nodeSelector or tolerations.",
    ),
    Reason.QUEUED: Row(
        Retry.WAIT,
        None,
        "A queue or a gang scheduler holds the workload.",
        "Wait until it is admitted; the queue's own objects say why it waits.",
    ),
    Reason.POD_REFUSED: Row(
        Retry.WAIT,
        None,
        "The cluster refuses a pod of the workload, or the Service that names it to the others.",
        "Make room in the quota, or change the policy or webhook that the message names.",
    ),
    Reason.NOT_STARTING: Row(
        Retry.WAIT,
        None,
        "A pod is not made, or does not start, for a cause that the operator does not know.",
        "Read the message; without one, look whether training-operator is at work.",
    ),
    Reason.START_TIMEOUT: Row(
        Retry.NEVER,
        None,
        "The pods could not be made or could not start in time; GPUs that they held were given "
        "back.",
        "Remove the cause named in the message, then `finetune retry NAME`.",
        once_begun=Retry.WAIT,
    ),
    Reason.INIT_FAILED: Row(
        Retry.INFRASTRUCTURE,
        None,
        "An init container that something else put into the pod failed.",
        "Read its log; a webhook put it there, as service meshes and secret injectors do.",
    ),
    Reason.POD_LOST: Row(
        Retry.INFRASTRUCTURE,
        None,
        "A pod was deleted, vanished or was replaced.",
        "Nothing: it is retried.",
    ),
    Reason.EVICTED: Row(
        Retry.INFRASTRUCTURE,
        None,
        "A pod was evicted: its node is drained, shuts down, or runs short of something.",
        "Nothing: it is retried.",
    ),
    Reason.PREEMPTED: Row(
        Retry.INFRASTRUCTURE,
        None,
        "A pod had to make room for one of a higher priority.",
        "Nothing: it is retried.",
    ),
    Reason.NODE_LOST: Row(
        Retry.INFRASTRUCTURE,
        None,
        "A pod's node is gone, does not answer, or was given a NoExecute taint.",
        "Nothing: it is retried, on another node where there is one.",
    ),
    Reason.RESULT_LOST: Row(
        Retry.INFRASTRUCTURE,
        None,
        "The pods ended without telling their result.",
        "Nothing: the next attempt finds a complete artifact, or trains.",
    ),
    Reason.BACKEND_UNAVAILABLE: Row(
        Retry.WAIT,
        None,
        "The cluster does not serve PyTorchJob, or a webhook that must see an object is away.",
        "Install Kubeflow training-operator v1.9; bring the webhook back that the message names.",
    ),
    Reason.BACKEND_REFUSED: Row(
        Retry.NEVER,
        None,
        "The cluster refused the attempt's objects; a full quota is waited for.",
        "Read the message: quota, admission policy or Pod Security refused them.",
        once_begun=Retry.WAIT,
    ),
    Reason.NAME_TAKEN: Row(
        Retry.WAIT,
        None,
        "An object of the attempt's name belongs to someone else.",
        "Delete it or rename the job; the job goes on once the name is free.",
    ),
    Reason.OPERATOR_FORBIDDEN: Row(
        Retry.WAIT,
        None,
        "The operator lacks a permission in the job's namespace.",
        "Install the chart of the operator's own version, with the namespace in watchNamespaces.",
    ),
    Reason.OPERATOR_ERROR: Row(
        Retry.WAIT,
        None,
        "The operator fails at the job again and again; what runs goes on, and deadline, "
        "suspension and deletion are obeyed.",
        "Report the message with the operator's log; the job goes on once a pass over it succeeds.",
    ),
    Reason.DEADLINE_EXCEEDED: Row(
        Retry.NEVER,
        None,
        "The job ran longer than runPolicy.activeDeadlineSeconds.",
        "Raise runPolicy.activeDeadlineSeconds, then `finetune retry NAME`.",
    ),
}

_BY_EXIT_CODE = {
    row.exit_code: reason for reason, row in TABLE.items() if row.exit_code is not None
}


def exit_code(reason: Reason) -> int:
    """Return the exit code of a process that ends with `reason`; 1 where the table has none."""
    code = TABLE[reason].exit_code
    return 1 if code is None else code


def reason_of_exit_code(code: int) -> Reason | None:
    """Return the reason that an exit code of our processes tells; None if it is not ours."""
    return _BY_EXIT_CODE.get(code)


def retry_of(reason: Reason, begun: bool) -> Retry:
    """Return what follows an attempt's end; `begun`: it, or one before it, did an optimizer step.

    Inputs and credentials that have served a step were right: what fails then can be mended. And
    what passes, such as a full quota or a registry that refuses, costs no training.
    """
    row = TABLE[reason]
    return row.once_begun if begun and row.once_begun is not None else row.retry


def advice(reason: Reason) -> str:
    """Return what the user can do about `reason`; empty where there is nothing to do."""
    return TABLE[reason].advice
