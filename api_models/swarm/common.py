"""What several objects of swarm mode contain."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from api_models.base import OMIT, Go
from api_models.record import Record, StringMap

Duration = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Go("time.Duration")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations(Record):
    """The name and the labels of an object."""

    go_name: ClassVar[str] = "swarm.Annotations"
    go_embedded: ClassVar[str] = "Annotations"

    name: Annotated[str, OMIT] = ""
    labels: StringMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver(Record):
    """A driver of logs, networks, secrets or templates, with its options."""

    go_name: ClassVar[str] = "swarm.Driver"

    name: Annotated[str, OMIT] = ""
    options: Annotated[StringMap | None, OMIT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSInfo(Record):
    """The root certificate in PEM; the subject and the public key of the issuer, DER in base64."""

    go_name: ClassVar[str] = "swarm.TLSInfo"

    trust_root: Annotated[str, OMIT] = ""
    cert_issuer_subject: Annotated[str, OMIT] = ""
    cert_issuer_public_key: Annotated[str, OMIT] = ""
