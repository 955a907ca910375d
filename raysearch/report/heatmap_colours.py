"""Computes the colours of heat maps: white to one hue, with ink that can be read on it.

Invariants: pages and pictures share the hue; ink is black or white, whichever contrasts more.
"""

from collections.abc import Sequence

LEVELS = 20
"""Steps from the background to the full hue on a page."""
HUE = (0.03, 0.32, 0.61)
_THEMES = {
    "light": ((1.0, 1.0, 1.0), HUE),
    "dark": ((0.09, 0.10, 0.12), (0.47, 0.72, 1.0)),
}
"""Background and full hue, as RGB in [0, 1]."""


def blend(
    share: float, full: Sequence[float] = HUE, ground: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[float, ...]:
    """Returns the RGB colour that lies `share`, in [0, 1], of the way from `ground` to `full`."""
    return tuple(g + share * (c - g) for c, g in zip(full, ground, strict=True))


def ink(colour: Sequence[float]) -> str:
    """Returns black or white, whichever has more contrast (WCAG 2.2) with an RGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if luminance > 0.179 else "#fff"


def level_rules(theme: str) -> str:
    """Returns the CSS rules of the levels in a theme, light or dark."""
    ground, full = _THEMES[theme]
    rules = []
    for level in range(LEVELS + 1):
        colour = blend(level / LEVELS, full, ground)
        rgb = ",".join(str(round(255 * c)) for c in colour)
        rules.append(f".h{level}{{background:rgb({rgb});color:{ink(colour)}}}")
    return "".join(rules)
