"""Who looks, and what it may see. Pure."""

from dataclasses import dataclass
from datetime import datetime

from websocket_bridge.commands import Selection
from websocket_bridge.messages import Scope, ViewerInfo
from websocket_bridge.subjects import Identity


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """One who looks. `expires_at` is None for one that needed no ticket."""

    scope: Scope
    user_id: str | None = None
    tenant_id: str | None = None
    expires_at: datetime | None = None

    @property
    def info(self) -> ViewerInfo:
        return ViewerInfo(scope=self.scope, user_id=self.user_id, tenant_id=self.tenant_id, expires_at=self.expires_at)

    @property
    def sees_all(self) -> bool:
        """Whether whatever it follows it may see. With the scope `ids` what it may follow is the bound."""
        return self.scope in {Scope.OPERATOR, Scope.IDS}

    def may_see(self, who: Identity) -> bool:
        if self.sees_all:
            return True
        if who.tenant_id != self.tenant_id:
            return False
        return self.scope is Scope.TENANT or who.user_id == self.user_id

    def is_same(self, other: "Viewer") -> bool:
        """Whether another ticket is of the same user, tenant and scope."""
        mine = (self.scope, self.user_id, self.tenant_id)
        return mine == (other.scope, other.user_id, other.tenant_id)

    def refused_field(self, selection: Selection) -> str | None:
        """The field of a selection that is outside of what this viewer may follow, or None."""
        operator = self.scope is Scope.OPERATOR
        if selection.all and not operator:
            return "all"
        if selection.dead_letters and not operator:
            return "dead_letters"
        if selection.tenant_id is not None and not operator:
            return None if self.scope is Scope.TENANT and selection.tenant_id == self.tenant_id else "tenant_id"
        if selection.user_id is not None and not operator:
            allowed = self.scope is Scope.TENANT or (self.scope is Scope.USER and selection.user_id == self.user_id)
            return None if allowed else "user_id"
        return None
