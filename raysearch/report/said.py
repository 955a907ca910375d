"""The verdicts in the words of people, in the order in which they are told."""

SAYS = {
    "accept": "accepted",
    "reject": "rejected",
    "undecided": "undecided",
    "failed": "failed",
    None: "not decided yet",
}
