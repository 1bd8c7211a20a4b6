# %% [markdown]
# # From samples to a pruned answer
#
# This is a notebook in the percent format. Jupyter, VS Code and PyCharm open it, and `python examples/calibrate.py`
# runs it in a minute or two on a CPU. It uses the small embedded model and its benchmark, so that nothing is
# downloaded. Its numbers come from a handful of pictures: they show how things work, not what a calibration is worth.

# %%
import tempfile
from pathlib import Path

import clasp_calib as cc
from clasp_calib.reference.benchmark import write_benchmark

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The model
#
# For a model of your own: `cc.load_model("llava-hf/llava-1.5-7b-hf", device="cuda", dtype="float16")`, or any model and
# processor that you have loaded with transformers.

# %%
model, processor = cc.load_model("reference")

# %% [markdown]
# ## Samples
#
# A sample is a question about a picture with its accepted answers. Samples come from a Parquet, JSONL or CSV file, a
# data frame, a `datasets.Dataset`, or a list of `cc.Sample`. Here the benchmark draws a few.

# %%
table = write_benchmark(folder / "benchmark", {"calibration": 3, "selection": 2, "test": 2})
samples = cc.label(cc.load_samples(table))
samples

# %% [markdown]
# ## The calibration
#
# Everything is kept in the run directory: interrupt this cell, run it again, and it goes on. There may be several
# budgets, such as `[128, "33%"]`.

# %%
options = cc.CalibrationOptions(strategy=cc.Pooled(spend=0.25))
artifact = cc.calibrate(model, processor, samples, [128], run=folder / "run", options=options)
for label in artifact.classes:
    print(f"{label:10} rho {artifact.rho('128', label):g}")

# %% [markdown]
# ## What it is worth
#
# On the test split, beside no pruning, default pruning and random pruning.

# %%
report = cc.evaluate(model, processor, artifact, samples, run=folder / "run", options=cc.EvaluationOptions(timed=1))
print(report.to_markdown())
print(f"calibrated at 128 tokens: {report.macro(128).mean:.0%}; unpruned: {report.macro(128, 'unpruned').mean:.0%}")
report

# %% [markdown]
# ## A pruned answer
#
# `cc.clasp` prunes every `forward` and `generate` of the model inside its block. What `transformers` does is unchanged.

# %%
sample = next(sample for sample in samples if sample.split == "test")
answer = cc.generate(model, processor, sample.image, sample.question, artifact=artifact, budget=128)
print(f"{sample.question} {answer.text} (expected: {' or '.join(sample.answers)})")

# %%
prompt = artifact.manifest.prompt.format(question=sample.question)
inputs = processor(images=cc.load_picture(sample.image), text=prompt, return_tensors="pt")
with cc.clasp(model, artifact, budget=128, classes="auto", questions=[sample.question]) as pruner:
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
print(processor.batch_decode(output, skip_special_tokens=True)[0])
print("visual tokens in each decoder layer:", pruner.stats.tokens[0])

# %% [markdown]
# ## Keep it
#
# `artifact.save(directory)` writes it, `artifact.push_to_hub("org/name")` publishes it, and `cc.Artifact.load` reads
# either.

# %%
report.artifact.save(folder / "artifact")
assert cc.Artifact.load(folder / "artifact").budgets == artifact.budgets
