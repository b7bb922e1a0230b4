"""What a reader of scores must not miss: heads that hardly learned, spots without features, rows
below the gene mean's.

The gene mean never looks at an image. A row that it beats says less than nothing at all would, in
that score; a head whose chosen epoch is the first is next to untrained. Table, report, model card
and what a command prints at its end all take these sentences from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from histospace_tf.predictors import baselines, ours, registry
from histospace_tf.predictors.peer_network import PeerNetwork
from histospace_tf.scores import metrics

# Scores in which the gene mean is a bar, and whether lower is better.
_BARS = {"gene_r": False, "spot_r": False, "mse": True}
_SHOWN = 3  # sections that a sentence names


def findings(scores_json: Mapping[str, Any]) -> list[str]:
    """One sentence per finding; empty where there is nothing to say.

    Args:
        scores_json: scores.json of a run, an evaluation or a scored run.
    """
    chosen = scores_json.get("chosen") or ()
    return [
        *_first_epochs(chosen, of_slides=bool((scores_json.get("bulk") or {}).get("learned"))),
        *_without_features(chosen),
        *_below_gene_mean(scores_json),
    ]


def _first_epochs(chosen: Sequence[Mapping[str, Any]], *, of_slides: bool) -> Iterator[str]:
    """Heads, or networks on slides as a whole, whose chosen epoch is the first of several."""
    first: dict[str, list[Mapping[str, Any]]] = {}
    for one in chosen:
        if one.get("epochs") == 1 and one.get("by") != "fixed" and one.get("most") != 1:
            first.setdefault(one["predictor"], []).append(one)
    for name, folds in first.items():
        held = [", ".join(one["held_out"]) for one in folds if one["held_out"]]
        where = f" with {_few(held)} held out" if held else ""
        most = f" of {folds[0]['most']}" if folds[0].get("most") else ""
        advice = (
            "More inner groups may help (`regressor.inner_folds`)."
            if isinstance(registry.entry(name), PeerNetwork) or "architecture" in folds[0]
            else "More inner groups, a lower rate or a fixed number of epochs may help "
            '(`regressor.epoch_choice` "fixed").'
        )
        if of_slides:
            advice = "More slides, of more patients, may help."
        yield (
            f"{registry.label(name)}: the epoch chosen on inner groups is the first{most}{where}; "
            f"it is next to untrained. {advice}"
        )


def _without_features(chosen: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Predictors on features that some spots lack: there they say what the training mean says."""
    lacking = {one["predictor"]: one.get("spots_without_features") for one in chosen}
    for name, spots in lacking.items():
        if spots:
            yield (
                f"{registry.label(name)}: {spots} spot(s) have no features and are predicted by "
                "the training mean."
            )


def _below_gene_mean(scores_json: Mapping[str, Any]) -> Iterator[str]:
    """Rows of predictors, by score, that the gene mean beats in some section."""
    sections = {name: entry["rows"] for name, entry in scores_json["sections"].items()}
    for name in registry.row_names(list(sections.values())):
        if registry.kind(name) not in ("ours", "other") or _is_models_own(name, sections):
            continue
        for key, lower_is_better in _BARS.items():
            worse: list[tuple[float, str]] = []
            for section, rows in sections.items():
                own, bar = ((rows.get(n) or {}).get(key) for n in (name, baselines.GeneMean.name))
                if own is None or bar is None:
                    continue
                # As they are shown: equal figures would make no sentence.
                gap = round(own, 3) - round(bar, 3)
                gap = -gap if lower_is_better else gap
                if gap < 0:
                    worse.append((gap, f"{section} ({own:.3f}, the gene mean has {bar:.3f})"))
            if worse:
                where = _few([words for _, words in sorted(worse)])
                count = f"{len(worse)} of {len(sections)} sections: " if len(sections) > 1 else ""
                yield (
                    f"{registry.label(name)}: {metrics.SCORES[key].label} is "
                    f"{'above' if lower_is_better else 'below'} the gene mean's in {count}{where}."
                )


def _is_models_own(name: str, sections: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a row is the model's again: a head without slide context is its own single tile's."""
    return name == ours.SingleTile.name and all(
        rows.get(name) == rows.get(ours.Model.name) for rows in sections.values()
    )


def _few(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
