"""The states of tasks. Names and numbers are SwarmKit's (api/types.proto); a task's observed state only increases."""

from collections.abc import Mapping
from enum import IntEnum


class TaskState(IntEnum):
    NEW = 0
    #: It has its addresses; no node is chosen yet.
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    #: The container is created. A task with the desired state READY waits here.
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    #: The agent refused the task, or could not prepare it.
    REJECTED = 768
    #: As a desired state: the agent removes the container, then the manager removes the task.
    REMOVE = 800
    #: The node was lost for so long that its tasks count as gone.
    ORPHANED = 832

    @property
    def ended(self) -> bool:
        """Whether the task does not run and never will again."""
        return self > TaskState.RUNNING

    @property
    def text(self) -> str:
        """The name in the API."""
        return self.name.lower()


#: By number. A look-up here costs a tenth of a call of the class.
STATES: Mapping[int, TaskState] = {int(state): state for state in TaskState}
