"""Causal models: variables, their parents and mechanisms; running and interchanging them.

Invariants: the graph has no cycle; every variable has a mechanism or is an input; every value is in
the domain of its variable. They are checked when a model is made and each time it is run.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from raysearch.errors import CausalModelError

Value = Hashable
Setting = Mapping[str, Value]


@dataclass(frozen=True)
class Variable:
    """A node of a causal model, with the values that it may take (`domain`; None: any)."""

    name: str
    domain: tuple[Value, ...] | None = None

    @cached_property
    def _members(self) -> frozenset[Value] | None:
        return None if self.domain is None else frozenset(self.domain)

    def check(self, value: Value) -> None:
        """Checks that `value` is in the domain.

        Raises:
            CausalModelError: it is not.
        """
        if self._members is not None and value not in self._members:
            shown = ", ".join(repr(v) for v in (self.domain or ())[:8])
            more = "" if len(self._members) <= 8 else f", ... ({len(self._members)} values)"
            raise CausalModelError(
                f"variable {self.name!r}: {value!r} is outside its domain; it may be {shown}{more}"
            )


@dataclass(frozen=True)
class CausalModel:
    """A directed acyclic graph of variables with mechanisms.

    A variable without parents and without a mechanism is an input. `mechanisms[v]` is called with
    the values of `parents[v]` in their order. `output` names the variable whose value is the
    answer.

    Raises:
        CausalModelError: a duplicate or unknown name, a missing mechanism, a cycle.
    """

    variables: tuple[Variable, ...]
    parents: Mapping[str, tuple[str, ...]]
    mechanisms: Mapping[str, Callable[..., Value]]
    output: str

    def __post_init__(self) -> None:
        self._check_kinds()
        object.__setattr__(self, "parents", MappingProxyType(dict(self.parents)))
        object.__setattr__(self, "mechanisms", MappingProxyType(dict(self.mechanisms)))
        names = [v.name for v in self.variables]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise CausalModelError(
                f"variable {twice[0]!r} is declared twice; give each variable its own name"
            )
        self._check_names()
        self._order  # noqa: B018  (raises for a cycle)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all variables, in the order of their declaration."""
        return tuple(v.name for v in self.variables)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the variables without a mechanism."""
        return tuple(n for n in self.names if n not in self.mechanisms)

    def run(self, values: Setting, fixed: Setting | None = None) -> dict[str, Value]:
        """Returns the value of every variable, given those of the inputs.

        Values of other variables in `values` are ignored, so that the result of a run can be run
        again.

        Args:
            fixed: values that variables have regardless of their parents.

        Raises:
            CausalModelError: an input is missing, or a value is outside its domain.
        """
        fixed = fixed or {}
        self._check_known(fixed)
        out: dict[str, Value] = {}
        for name in self._order:
            if name in fixed:
                value = fixed[name]
            elif name in self.mechanisms:
                value = self.mechanisms[name](*(out[p] for p in self.parents.get(name, ())))
            elif name in values:
                value = values[name]
            else:
                raise CausalModelError(
                    f"input {name!r} has no value; got {', '.join(sorted(values)) or 'nothing'}"
                )
            self._by_name[name].check(value)
            out[name] = value
        return out

    def interchange(self, base: Setting, sources: Mapping[str, Setting]) -> Value:
        """Returns the output for `base` when each variable named in `sources` has the value of its
        source's run.

        This is an interchange intervention on the causal model (Geiger et al. 2021, "Causal
        Abstractions of Neural Networks").
        """
        self._check_known(sources)
        return self.run(base, {name: self.run(source)[name] for name, source in sources.items()})[
            self.output
        ]

    def _check_known(self, names: Iterable[str]) -> None:
        for name in sorted(set(names) - set(self.names)):
            raise CausalModelError(
                f"{name!r} is no variable; the model has {', '.join(self.names)}"
            )

    @cached_property
    def _by_name(self) -> dict[str, Variable]:
        return {v.name: v for v in self.variables}

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """The variables, parents first."""
        order: list[str] = []
        state: dict[str, int] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if state.get(name) == 2:
                return
            if state.get(name) == 1:
                loop = " -> ".join((*path[path.index(name) :], name))
                raise CausalModelError(
                    f"the causal model has a cycle: {loop}; a variable cannot be its own ancestor"
                )
            state[name] = 1
            for parent in self.parents.get(name, ()):
                visit(parent, (*path, name))
            state[name] = 2
            order.append(name)

        for name in self.names:
            visit(name, ())
        return tuple(order)

    def _check_kinds(self) -> None:
        other = next((v for v in self.variables if not isinstance(v, Variable)), None)
        if other is not None:
            raise CausalModelError(
                f"variables has {other!r:.60}; give Variables, such as "
                f"Variable({str(other)[:20]!r})"
            )
        for name, parents in self.parents.items():
            if isinstance(parents, str):
                raise CausalModelError(
                    f"parents of {name!r} is the text {parents!r}; give a tuple of names, "
                    f"({parents!r},)"
                )
        for name, mechanism in self.mechanisms.items():
            if not callable(mechanism):
                raise CausalModelError(
                    f"the mechanism of {name!r} is {mechanism!r:.60}; give a function of its "
                    f"parents' values"
                )

    def _check_names(self) -> None:
        mentioned = {
            *self.parents,
            *self.mechanisms,
            self.output,
            *(p for ps in self.parents.values() for p in ps),
        }
        self._check_known(mentioned)
        for name, parents in self.parents.items():
            if parents and name not in self.mechanisms:
                raise CausalModelError(
                    f"variable {name!r} has parents {', '.join(parents)} but no mechanism"
                )
