"""Runs settings from start to end: the command line, resuming, the table, summary and records."""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import ifv_jax as ifv
from benchmarks import records, report, spaces, stages, summary
from benchmarks.command_line import Option, parse
from benchmarks.estimators import ESTIMATORS, Asked, gather
from benchmarks.report import Case, Estimate
from benchmarks.setting import CLOSED_FORM, Setting
from benchmarks.start import start

SHARED = ("only", "samples", "adam_steps", "lbfgs_steps", "no_verify", "seed", "draw")


class Outcome(NamedTuple):
    """The result of one setting."""

    found: stages.Found
    estimates: list[Estimate]  # the best last
    cases: list[Case]  # one for each of them


def run(setting: Setting, folder: ifv.Run, *, verify: bool = True) -> Outcome:
    """Visualizes, estimates and verifies; goes on from where an earlier process stopped.

    Where a critical space is found, the closed form without it is reported, too. What is verified
    is the prediction of the last estimator.
    """
    folder = setting.part(folder)
    functions = setting.functions()
    found = stages.visualize(setting, functions, folder)
    estimates: list[Estimate] = []
    if setting.estimators:
        evidence = gather(setting, functions, found, folder)
        space, notes = None, {}

        def add(name: str, notes: dict[str, Any]) -> None:
            asked = Asked(setting, functions, found, evidence, space, folder)
            predictions = ESTIMATORS[name].predict(asked)
            # Of the others it is not known: they may ask the network for more, and be resumed.
            seconds = evidence.seconds if name == CLOSED_FORM else None
            estimates.append(Estimate(name, predictions, space, seconds, None, notes))

        if setting.critical:
            choice, notes = spaces.find(setting, found, evidence)
            if choice.space.complement.shape[1]:
                add(CLOSED_FORM, {"note": "whole feature space, no critical space"})
                space = choice.space
        for name in setting.estimators:
            add(name, notes)
            notes = {}
        if verify:
            last = estimates[-1]
            verified = stages.verify(setting, functions, found, last.predictions, folder)
            estimates[-1] = last._replace(verified=verified)
    cases = [report.to_case(setting, found, estimate) for estimate in estimates]
    return Outcome(found, estimates, cases)


def main(
    doc: str | None,
    settings: Callable[[argparse.Namespace], Iterable[Setting]],
    draw: Callable[[Path, Sequence[records.Record]], None],
    arguments: Sequence[str] | None = None,
    *,
    out: str,
    work: str | None,
    notes: Callable[[Setting, argparse.Namespace], dict[str, Any]] = lambda setting, options: {},
    **options: Option,
) -> None:
    """A script that measures settings and draws them.

    Args:
      doc: its docstring.
      settings: what is varied, given the options.
      draw: the pictures, into a folder.
      arguments: of the command line; None: this process's.
      out: folder of the results by default.
      work: that of the checkpoints; None: nothing is kept.
      notes: further ones for the last case of a setting.
      options: that the script has beside the shared ones, see `command_line.parse`.
    """
    folders = {"work": {"default": work and Path(work)}, "out": {"default": Path(out)}}
    given = parse(doc, arguments, *SHARED, **options, **folders)
    if given.draw:
        if not (given.out / records.FILE).is_file():
            raise SystemExit(f"expected {records.FILE} in {given.out}: measure before you draw")
        draw(given.out, records.load(given.out))
        print(f"drew {given.out} again")
        return
    start()
    began = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    cases: list[Case] = []
    kept: list[records.Record] = []
    for setting in chosen(list(settings(given)), given.only):
        setting = changed(setting, given)
        print(f"\n{setting.name}: {setting.samples} targets", flush=True)
        folder = ifv.Run(None if given.work is None else given.work / setting.slug)
        outcome = run(setting, folder, verify=verified(setting, given.no_verify))
        kept.append(records.record(setting, outcome.found, outcome.estimates))
        if outcome.cases:
            *others, last = outcome.cases
            more = notes(setting, given)
            cases += [*others, replace(last, notes=last.notes | more)]
        # Written after every setting, so that a run cut short has reported what it finished.
        summary.write(given.out, [asdict(case) for case in cases])
        records.save(given.out, kept)
        draw(given.out, kept)
        if outcome.cases:
            print(f"\n{report.table(cases)}", flush=True)
    if said := report.similarities(cases):
        print(said)
    seconds = time.monotonic() - began
    print(f"\n{seconds:.0f} s; wrote {given.out / summary.FILE} and the pictures beside it")


def chosen(settings: Sequence[Setting], only: Sequence[str] | None) -> list[Setting]:
    """The settings whose names follow --only, or all."""
    names = [setting.name for setting in settings]
    if unknown := set(only or ()) - set(names):
        raise SystemExit(f"expected names among {names} behind --only, got {sorted(unknown)}")
    return [setting for setting in settings if not only or setting.name in only]


def changed(setting: Setting, options: argparse.Namespace) -> Setting:
    """The setting with the numbers of samples and steps that the command line wants."""
    config = setting.config
    for name in ("adam_steps", "lbfgs_steps"):
        wanted = getattr(options, name)
        if wanted is not None and getattr(config, name):  # what a setting leaves out stays out
            config = replace(config, **{name: wanted})
    setting = replace(setting, config=config)
    samples = options.samples
    if samples is None:
        return setting
    if setting.targets is not None:
        targets = setting.targets[:samples]
        return replace(setting, targets=targets, samples=len(targets))
    canonical = round(samples * setting.canonical / setting.samples)
    return replace(setting, samples=samples, canonical=canonical)


def verified(setting: Setting, left_out: Sequence[str] | None) -> bool:
    """Whether a setting is verified, given what follows --no-verify; None: the option is not."""
    if left_out is None:
        return setting.reoptimized > 0
    return bool(left_out) and setting.name not in left_out
