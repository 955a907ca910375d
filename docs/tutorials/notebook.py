# The cells of notebook.ipynb. `python scripts/make_notebook.py` executes them in a folder
# docs/tutorials/ that lies beside jobs/.

# %% [markdown]
# # Where does this network keep the numbers that it adds?
#
# A small Llama of four layers reads `3+5+4=` and answers `12`. We believe that it first adds `a`
# and `b`, then adds `c` to the result. A *job* asks for each variable of that belief: if the
# residual after this layer, at this word, came from another sum, would the answer change as if the
# variable had come from there?
#
# No GPU, no download, half a minute.

# %%
import raysearch as rs

job = rs.Job.load("../../jobs/quickstart.yaml")
print(job.space.variables, job.space.positions, f"accept above {job.test.threshold}", sep="\n")

# %% [markdown]
# ## The search
#
# `rs.run` does what `raysearch run --pool local` does: the same run folder, the same verdicts.
# `pool="ray"` spreads it over the GPUs of a Ray, and `tracking_uri="sqlite:///mlflow.db"` mirrors
# it to MLflow. Interrupt the cell when you like: the run goes on with `rs.resume()`.

# %%
run = rs.run(job, store="../../runs")

# %%
run

# %% [markdown] Each row is a hypothesis that was *accepted*: interchange this activation, and the
# answer is what the causal model predicts. The interval holds at whatever moment the test stopped;
# the holdout pairs were looked at once, after that. `run.alignment` is the same as a frame:

# %%
run.alignment[["variable", "layer", "position", "iia", "low", "high", "n", "holdout_iia"]]

# %% [markdown]
# ## Where it is, and where it is not
#
# The sum of `a` and `b` is in one place: after layer 1, at the second plus. What is false was
# rejected after a few pairs: the means of the cells without an outline are of few pairs, and are
# biased, because the test stopped at them.

# %%
run.heatmap("sum_ab")

# %%
run.results(variable="sum_ab", where="verdict = 'reject'", top=4)[
    ["layer", "position", "iia", "low", "high", "n"]
]

# %% [markdown]
# ## One hypothesis by hand
#
# 1 + 1 in the place of 3 + 5 makes 6 of 3 + 5 + 4, if the second plus of layer 1 holds the sum. At
# the first plus nothing changes:

# %%
model = rs.Model.load("../../jobs/planted/model")
for token in (3, 1):
    print(model.swap("3+5+4=", "1+1+4=", layer=1, position=token))

# %% [markdown] One pair proves nothing. Twenty pairs of the run, each held against what the causal
# model predicts for `sum_ab`:

# %%
pairs = run.pairs[run.pairs["split"] == "test"].head(20)
predicted = [
    next(c["answer"] for c in of if c["variable"] == "sum_ab") for of in pairs["counterfactual"]
]
swaps = [
    model.swap(base, sources[0]["text"], layer=1, position=3)
    for base, sources in zip(pairs["base_text"], pairs["sources"], strict=True)
]
sum(swap.token == answer for swap, answer in zip(swaps, predicted, strict=True)), len(swaps)

# %% [markdown]
# ## Later
#
# A run is a folder. It is found again by its path, its name, or as the latest of its store;
# `raysearch results latest` shows it on the command line.

# %%
again = rs.Run.open("latest", store="../../runs")
again.info.id == run.info.id, again.to_arrow().num_rows
