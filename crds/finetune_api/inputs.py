"""FineTuneJob.spec.model and spec.data: what goes in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_api.types import ConfigMapKey, Name, Rule, SecretRef, bound, keyed_by, store_address
from finetune_contract import recipe as contract
from finetune_contract.model import URI, Message, Reach
from finetune_contract.recipe import (
    BadRows,
    Columns,
    DataFormat,
    DataSource,
    FileFormat,
    ModelRecipe,
    TrainingSource,
)

HUB_ONLY = Rule(
    "!(has(self.config) || has(self.split)) || self.uri.startsWith('hf://datasets/')",
    "config and split are for hf://datasets only; name the file or a pattern instead",
    ".uri",
)


class HostPathCache(Message):
    """A directory of the node."""

    path: Annotated[str, Field(min_length=2, max_length=1024, pattern=r"^/[^:]*$"), Reach.HOST_PATH]
    """Absolute path on the node; created if it does not exist. The operator's chart has to allow it
    (policy.hostPath), and Pod Security `restricted` forbids hostPath: prefer a claim."""


class ClaimCache(Message):
    """A PersistentVolumeClaim in the job's namespace."""

    claim_name: Name
    """Name of the claim; ReadWriteMany if workers run on several nodes."""


@Rule(
    "has(self.persistentVolumeClaim) != has(self.hostPath)",
    "set exactly one of persistentVolumeClaim and hostPath",
)
class ModelCache(Message):
    """Where downloads of the base model are kept between attempts and jobs."""

    persistent_volume_claim: ClaimCache | None = None
    """Keep the model on a claim."""
    host_path: HostPathCache | None = None
    """Keep the model on the node's disk."""


@store_address("uri")
@Rule(
    "[has(self.inline), has(self.configMap), has(self.uri)].filter(given, given).size() == 1",
    "set exactly one of inline, configMap and uri",
)
class ChatTemplate(contract.ChatTemplate):
    """A chat template in place of the model's own: Jinja, as tokenizers of transformers hold it."""

    config_map: ConfigMapKey | None = None
    """A key of a ConfigMap in the job's namespace."""


@store_address("uri", URI)
@store_address("initFrom")
@Rule(
    "!has(self.revision) || self.uri.startsWith('hf://')",
    "revision is for hf:// models only; remove it or use an hf:// uri",
    ".revision",
)
class Model(ModelRecipe):
    """The base model, and how to get it."""

    chat_template: ChatTemplate | None = None
    """A chat template in place of the model's own. It is published with the adapter."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for reading the model, and the adapter of initFrom; none means the pod's own
    identity or a public model."""
    cache: ModelCache | None = None
    """Download once per node instead of once per pod."""


@store_address("uri", URI)
@HUB_ONLY
class EvalData(DataSource):
    """One file of rows to evaluate on."""

    format: DataFormat = DataFormat.AUTO
    """As in data.train."""
    file_format: FileFormat = FileFormat.AUTO
    """As in data.train."""


@store_address("uri", URI)
@HUB_ONLY
@bound("weight", "> 0.0", "weight must be above 0; leave the file out instead")
@bound("weight", "<= 1000.0", "weight must be at most 1000")
class TrainingData(TrainingSource):
    """One file of training rows."""


@Rule(
    "!has(self.eval) || !self.eval.exists(e, self.train.exists(t, t.uri == e.uri"
    " && (has(t.split) ? t.split : 'train') == (has(e.split) ? e.split : 'train')"
    " && (has(t.config) ? t.config : '') == (has(e.config) ? e.config : '')))",
    "a file of data.train can not be evaluated on; hold rows out in a file of their own",
    ".eval",
)
class Data(Message):
    """The data."""

    train: Annotated[
        tuple[TrainingData, ...],
        Field(min_length=1, max_length=32, json_schema_extra=keyed_by("uri")),
    ]
    """Files to train on; their rows are shuffled together by training.seed. An epoch takes
    weight x rows of each file."""
    eval: (
        Annotated[tuple[EvalData, ...], Field(max_length=32, json_schema_extra=keyed_by("uri"))]
        | None
    ) = None
    """Files to evaluate on; see eval. None of their rows may stand in data.train."""
    on_bad_row: BadRows = BadRows.FAIL
    """`Fail`: a row that can not be trained on ends the job before the model is loaded, with file,
    row and reason. `Skip`: it is left out, counted in the log and listed in the artifact."""
    columns: Columns | None = None
    """Which column of a row is what, in all files, where its name does not tell."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for reading the data."""
