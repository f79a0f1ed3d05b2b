"""What authors write: read-only views of definitions, which are kept exactly as authored."""

from machina.definitions.agent import Agent, Step
from machina.definitions.base import Kind, check_name
from machina.definitions.prompt import Prompt
from machina.definitions.workflow import Foreach, Task, Workflow, is_declaration

__all__ = [
    "Agent",
    "Foreach",
    "Kind",
    "Prompt",
    "Step",
    "Task",
    "Workflow",
    "check_name",
    "is_declaration",
]
