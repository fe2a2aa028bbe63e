"""Who has history: tenants, their projects, the runs of those, and each agent's part in a run.

Every method takes the tenant first, and none reaches another tenant's rows. Writing makes the
database where there is none; reading never does. Any method raises ``InvalidName`` for what is
no name, ``UnknownRecord`` where the tenant has nothing of that name, and ``AuditUnavailable``
where the database cannot be used.
"""

from __future__ import annotations

from actorbus.persistence.repositories.agent_runs import AgentRuns, AgentRunView
from actorbus.persistence.repositories.projects import Projects, ProjectView
from actorbus.persistence.repositories.repository import Repository, TenantName
from actorbus.persistence.repositories.runs import Runs, RunView
from actorbus.persistence.repositories.tenants import Tenants, TenantView

__all__ = [
    "AgentRunView",
    "AgentRuns",
    "ProjectView",
    "Projects",
    "Repository",
    "RunView",
    "Runs",
    "TenantName",
    "TenantView",
    "Tenants",
]
