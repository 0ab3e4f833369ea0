"""Reads the Dockerfile: its stages, and their instructions in order."""

import re
from dataclasses import dataclass, field

from tests.deploy.compose import ROOT


@dataclass(frozen=True, kw_only=True)
class Stage:
    """From one FROM to the next. `instructions` holds pairs: the keyword, and what follows it."""

    base: str
    name: str | None
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == keyword]

    def only(self, keyword: str) -> str:
        (rest,) = self.all(keyword)
        return rest

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())


def stages() -> list[Stage]:
    """The stages of our Dockerfile; what ships is the last one."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base=base, name=name or None))
        elif keyword and found:
            found[-1].instructions.append((keyword, rest.strip()))
    return found


def global_arguments() -> dict[str, str]:
    """The ARGs before the first FROM, with their defaults."""
    head = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("\nFROM ")[0]
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", head, re.MULTILINE))


def built_extras() -> set[str]:
    """The extras that the image has if the build is not told otherwise."""
    (default,) = [rest for rest in stages()[0].all("ARG") if rest.startswith("EXTRAS=")]
    return set(default.removeprefix("EXTRAS=").strip('"').split())
